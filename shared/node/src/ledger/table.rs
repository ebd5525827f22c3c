//! The books as a table for people: one line per book, columns as wide as they have to be.

use std::fmt::Write;

use super::Ledger;

/// Renders `ledger`. Ends with a line that says whether the books close.
pub(super) fn render(ledger: &Ledger) -> String {
    let mut out = String::new();
    section(
        &mut out,
        &["track", "appended", "acked", "queued", "expired", "gap", "difference"],
        {
            let rows = ledger.tracks.iter();
            rows.map(|book| {
                let numbers = [book.appended, book.acked, book.queued, book.expired, book.gap];
                row(&book.track, &numbers, book.difference)
            })
            .collect()
        },
    );
    let names = [
        "edge/instance/lane/run",
        "through",
        "base",
        "stored",
        "known",
        "heartbeats",
        "expired",
        "gap",
        "waiting",
        "difference",
    ];
    section(&mut out, &names, {
        let rows = ledger.lanes.iter();
        rows.map(|book| {
            let name = format!("{}/{}/{}/{}", book.edge, book.instance, book.lane, book.run);
            let numbers = [
                book.through,
                book.base,
                book.stored,
                book.known,
                book.heartbeats,
                book.expired,
                book.gap,
            ];
            let mut row = row(&name, &numbers, book.difference);
            row.insert(row.len() - 1, optional(book.waiting));
            row
        })
        .collect()
    });
    if let Some(log) = &ledger.log {
        let rows = vec![row("log", &[log.appended, log.stored, log.others], log.difference)];
        section(
            &mut out,
            &["links against log", "appended", "stored", "others", "difference"],
            rows,
        );
    }
    let names = [
        "reader",
        "matched",
        "acked",
        "in flight",
        "expired",
        "dropped",
        "skipped",
        "unread",
        "difference",
    ];
    section(&mut out, &names, {
        let rows = ledger.readers.iter();
        rows.map(|book| {
            let dropped = book.dropped.values().copied().fold(0, u64::saturating_add);
            let numbers = [
                book.matched,
                book.acked,
                book.in_flight,
                book.expired,
                dropped,
                book.skipped,
            ];
            let mut row = row(&book.reader, &numbers, book.difference);
            row.insert(row.len() - 1, optional(book.unread));
            row
        })
        .collect()
    });
    if ledger.readers_total.omitted > 0 {
        writeln!(
            out,
            "and {} readers that are not listed\n",
            ledger.readers_total.omitted
        )
        .ok();
    }
    if ledger.closes {
        writeln!(out, "the books close").ok();
    } else {
        writeln!(out, "{} books do NOT close", ledger.open).ok();
    }
    out
}

fn row(name: &str, numbers: &[u64], difference: i64) -> Vec<String> {
    // A client chooses its ID: no control character of it reaches a terminal.
    let name = name.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    let numbers = numbers.iter().map(u64::to_string);
    [name]
        .into_iter()
        .chain(numbers)
        .chain([difference.to_string()])
        .collect()
}

fn optional(number: Option<u64>) -> String {
    number.map_or_else(|| "?".to_owned(), |number| number.to_string())
}

fn section(out: &mut String, names: &[&str], rows: Vec<Vec<String>>) {
    if rows.is_empty() {
        return;
    }
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([names[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..names.len()).map(width).collect();
    let header = names.iter().map(|name| (*name).to_owned()).collect();
    for row in [header].iter().chain(&rows) {
        let mut line = format!("{:<width$}", row[0], width = widths[0]);
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            write!(line, "  {cell:>width$}").ok();
        }
        writeln!(out, "{}", line.trim_end()).ok();
    }
    out.push('\n');
}
