//! The books as a table for people: one line per book, columns as wide as they have to be.

use std::fmt::Write;

use super::Ledger;

/// Renders `ledger`. Ends with a line that says whether the books close.
pub(super) fn render(ledger: &Ledger) -> String {
    let mut out = String::new();
    tracks(&mut out, ledger);
    lanes(&mut out, ledger);
    log(&mut out, ledger);
    readers(&mut out, ledger);
    if ledger.closes {
        writeln!(out, "the books close").ok();
    } else {
        writeln!(out, "{} books do NOT close", ledger.open).ok();
    }
    out
}

fn tracks(out: &mut String, ledger: &Ledger) {
    let rows = ledger.tracks.iter().map(|book| {
        let numbers = [book.appended, book.acked, book.queued, book.expired, book.gap];
        row(&book.track, &numbers, book.difference)
    });
    section(
        out,
        "track appended acked queued expired gap difference",
        rows.collect(),
    );
}

fn lanes(out: &mut String, ledger: &Ledger) {
    let rows = ledger.lanes.iter().map(|book| {
        let name = format!("{}/{}/{}/{}", book.edge, book.instance, book.lane, book.run);
        let (stored, known) = (book.stored, book.known);
        let numbers = [
            book.through,
            book.base,
            stored,
            known,
            book.heartbeats,
            book.expired,
            book.gap,
        ];
        let mut row = row(&name, &numbers, book.difference);
        row.insert(row.len() - 1, optional(book.waiting));
        row
    });
    section(
        out,
        "edge/instance/lane/run through base stored known heartbeats expired gap waiting difference",
        rows.collect(),
    );
}

fn log(out: &mut String, ledger: &Ledger) {
    let rows = ledger.log.iter();
    let rows = rows.map(|log| row("log", &[log.appended, log.stored, log.others], log.difference));
    section(
        out,
        "links-against-log appended stored others difference",
        rows.collect(),
    );
}

fn readers(out: &mut String, ledger: &Ledger) {
    let rows = ledger.readers.iter().map(|book| {
        let dropped = book.dropped.values().copied().fold(0, u64::saturating_add);
        let (matched, acked) = (book.matched, book.acked);
        let numbers = [matched, acked, book.in_flight, book.expired, dropped, book.skipped];
        let mut row = row(&book.reader, &numbers, book.difference);
        row.insert(row.len() - 1, optional(book.unread));
        row
    });
    section(
        out,
        "reader matched acked in-flight expired dropped skipped unread difference",
        rows.collect(),
    );
    let omitted = ledger.readers_total.omitted;
    if omitted > 0 {
        writeln!(out, "and {omitted} readers that are not listed\n").ok();
    }
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

/// One table. `names` are those of its columns, separated by blanks.
fn section(out: &mut String, names: &str, rows: Vec<Vec<String>>) {
    if rows.is_empty() {
        return;
    }
    let names: Vec<&str> = names.split(' ').collect();
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
