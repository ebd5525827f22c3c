//! What an operator does with a store that no node has open: `doctor`, `peek`, `export`, `import`.
//!
//! In: the data directory and the arguments. Out: lines or JSON on the standard output, progress on a terminal, and an exit code:
//! [`DAMAGED`] where something is damaged or missing. All but `doctor --repair` and `import` change nothing.

use std::fs::File;
use std::io::{BufReader, BufWriter, IsTerminal, Write};
use std::path::Path;

use fellbeck_core::filter::Filter;
use fellbeck_core::{Batch, Record, RecordBlockBuilder, Seq};
use fellbeck_node::NodeError;
use fellbeck_store::export::{Exporter, Importer};
use fellbeck_store::{Append, Commit, Examination, Offline, OfflineBatch, Put, Space, Store, StoreConfig};
use serde_json::{Value, json};

use crate::args::{DoctorArgs, ImportArgs, PeekArgs};

/// Exit code of `doctor` where something is damaged, or missing and not yet declared.
const DAMAGED: u8 = 7;

/// How a command ended.
pub(crate) type Ended = Result<u8, NodeError>;

pub(crate) fn doctor(store: &Path, config: StoreConfig, args: &DoctorArgs) -> Ended {
    if args.repair {
        // What the next start of the node would do, and nothing else.
        let (opened, report) = fellbeck_store::open(store, config)?;
        opened.close();
        drop(opened);
        say(&format!(
            "repaired: {} records lost, {} batches put back, quarantine {:?}, made anew {:?}",
            report.lost_records(),
            report.restored_batches,
            report.quarantined,
            report.remade
        ));
    }
    let offline = Offline::open(store)?;
    let examination = offline.examine(&mut progress(&offline))?;
    if args.json {
        say(&examined(&examination).to_string());
    } else {
        print_examination(&examination);
    }
    if let Some(file) = &args.export {
        export(&offline, file, &PeekArgs::default())?;
    }
    Ok(if examination.is_sound() { 0 } else { DAMAGED })
}

pub(crate) fn peek(store: &Path, args: &PeekArgs) -> Ended {
    let offline = Offline::open(store)?;
    let filter = filter(args)?;
    let (mut left, mut out) = (args.limit.unwrap_or(u64::MAX), BufWriter::new(std::io::stdout().lock()));
    let mut failed = None;
    offline.batches(&mut |_| {}, &mut |batch| {
        for (seq, record) in chosen(batch, args, filter.as_ref()) {
            if left == 0 {
                return false;
            }
            left -= 1;
            let line = if args.json {
                record_json(batch, seq, &record).to_string()
            } else {
                record_text(batch, seq, &record)
            };
            if let Err(error) = writeln!(out, "{line}") {
                failed = Some(error);
                return false;
            }
        }
        left > 0
    })?;
    match failed.map_or_else(|| out.flush(), Err) {
        // Whoever read has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(0),
        outcome => outcome.map(|()| 0).map_err(state),
    }
}

pub(crate) fn export_range(store: &Path, file: &Path, args: &PeekArgs) -> Ended {
    let offline = Offline::open(store)?;
    export(&offline, file, args)?;
    Ok(0)
}

/// Writes what `args` chooses. Whole batches go as they are; of others, the chosen records in a batch of their own.
fn export(offline: &Offline, file: &Path, args: &PeekArgs) -> Result<(), NodeError> {
    let filter = filter(args)?;
    let out = File::create_new(file).map_err(|error| state(format!("{}: {error}", file.display())))?;
    let mut exporter = Exporter::begin(BufWriter::new(out), offline.log_id()).map_err(state)?;
    let mut failed = None;
    let unreadable = offline.batches(&mut progress(offline), &mut |batch| {
        let mut at: Option<(Seq, u64)> = None;
        let mut builder = RecordBlockBuilder::default();
        let mut write = |first: Seq, builder: &mut RecordBlockBuilder| {
            exporter.batch(batch.track, &Batch::seal(batch.epoch, first, &builder.finish()))
        };
        for (seq, record) in chosen(batch, args, filter.as_ref()) {
            if let Some((first, _)) = at.filter(|(_, next)| *next != seq)
                && let Err(error) = write(first, &mut builder)
            {
                failed = Some(error);
                return false;
            }
            let first = at.filter(|(_, next)| *next == seq).map_or(Seq(seq), |(first, _)| first);
            builder.push(&record);
            at = Some((first, seq + 1));
        }
        if let Some((first, _)) = at
            && let Err(error) = write(first, &mut builder)
        {
            failed = Some(error);
        }
        failed.is_none()
    })?;
    failed.map_or(Ok(()), Err).map_err(state)?;
    let (out, records) = exporter.finish().map_err(state)?;
    out.into_inner()
        .map_err(|error| state(error.to_string()))?
        .sync_all()
        .map_err(state)?;
    say(&format!(
        "{records} records exported, {unreadable} bytes could not be read"
    ));
    Ok(())
}

/// Appends the records of an export file at the ends of their lanes, each once, however often it is asked for and whatever cuts it short.
pub(crate) fn import(store: &Path, config: StoreConfig, args: &ImportArgs) -> Ended {
    let file = File::open(&args.file).map_err(|error| state(format!("{}: {error}", args.file.display())))?;
    let mut importer = Importer::begin(BufReader::new(file)).map_err(state)?;
    let from: String = importer.log_id().iter().map(|byte| format!("{byte:02x}")).collect();
    let (store, _) = fellbeck_store::open(store, config)?;
    let (mut taken, mut skipped) = (0, 0);
    let (submitter, mut answers) = store.submitter(1);
    while let Some((track, batch)) = importer.next_batch().map_err(state)? {
        let id = store.track(&track).ok_or_else(|| {
            state(format!(
                "this node has no lane for {track}: add it to the forward rules"
            ))
        })?;
        let block = batch.open(fellbeck_core::limits::BATCH_MAX_CLOUD).map_err(state)?;
        let key = format!("import/{from}/{track}").into_bytes();
        let done = imported(&store, &key)?;
        let own = store.log_id() == importer.log_id();
        let mut builder = RecordBlockBuilder::default();
        let mut last = None;
        for (seq, record) in (batch.header.first.0..).zip(block.iter()) {
            let position = (batch.header.epoch.0, seq);
            if done.is_some_and(|done| position <= done) || (own && is_held(&store, id, Seq(seq))?) {
                skipped += 1;
                continue;
            }
            last = Some(position);
            builder.push(&record);
        }
        let Some((epoch, seq)) = last else { continue };
        let block = builder.finish();
        taken += block.len();
        let value = [&epoch.to_be_bytes()[..], &seq.to_be_bytes()].concat();
        let put = Put {
            space: Space::Node,
            key: key.into(),
            value: value.into(),
        };
        let commit = Commit {
            appends: vec![Append { track: id, block }],
            puts: vec![put],
            ..Commit::default()
        };
        submitter.submit(commit).map_err(|error| state(error.to_string()))?;
        answers.blocking_recv().ok_or_else(|| state("the store has halted"))?;
    }
    drop(submitter);
    store.close();
    say(&format!(
        "{taken} records imported, {skipped} left out since they are there"
    ));
    Ok(0)
}

/// Up to which position of that store and lane records were imported.
fn imported(store: &Store, key: &[u8]) -> Result<Option<(u32, u64)>, NodeError> {
    let stored = store.get(Space::Node, key).map_err(state)?;
    Ok(stored.and_then(|stored| {
        let (epoch, seq) = stored.value.split_first_chunk::<4>()?;
        Some((u32::from_be_bytes(*epoch), u64::from_be_bytes(seq.try_into().ok()?)))
    }))
}

/// The very record is in the store, or was delivered.
fn is_held(store: &Store, track: fellbeck_core::TrackId, seq: Seq) -> Result<bool, NodeError> {
    let bounds = store.bounds(track);
    if seq <= bounds.acked {
        return Ok(true);
    }
    if seq >= bounds.end {
        return Ok(false);
    }
    let read = store.track_records(track, seq, 1).map_err(state)?;
    let holds = |part: &fellbeck_store::RecordsAt| part.first <= seq && seq.0 < part.first.0 + part.block.len() as u64;
    Ok(read.blocks.iter().any(holds))
}

fn state(error: impl ToString) -> NodeError {
    NodeError::State(error.to_string())
}

fn filter(args: &PeekArgs) -> Result<Option<Filter>, NodeError> {
    let parse = |text: &String| Filter::parse(text).map_err(|error| state(format!("filter {text}: {error}")));
    args.topic.as_ref().map(parse).transpose()
}

/// The records of a batch that the arguments choose.
fn chosen<'a>(
    batch: &'a OfflineBatch<'_>,
    args: &'a PeekArgs,
    filter: Option<&'a Filter>,
) -> impl Iterator<Item = (u64, Record<'a>)> {
    let of_lane = args
        .lane
        .as_ref()
        .is_none_or(|lane| batch.track == lane || batch.track.split('/').nth(1).is_some_and(|name| name == lane));
    let numbered = (batch.first.0..).zip(batch.block.iter());
    numbered.filter(move |(seq, record)| {
        let at = record.accepted_at.0;
        of_lane
            && args.first.is_none_or(|first| *seq >= first)
            && args.last.is_none_or(|last| *seq <= last)
            && args.since.is_none_or(|since| at >= since)
            && args.until.is_none_or(|until| at <= until)
            && filter.is_none_or(|filter| filter.matches(record.topic))
    })
}

fn record_json(batch: &OfflineBatch<'_>, seq: u64, record: &Record<'_>) -> Value {
    let text = std::str::from_utf8(record.payload).ok();
    let hex = || {
        record
            .payload
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    json!({
        "track": batch.track, "epoch": batch.epoch.0, "seq": seq, "commit": batch.commit.0,
        "topic": record.topic, "device": record.device, "qos": record.qos as u8, "retain": record.retain,
        "accepted_at_ms": record.accepted_at.0, "expiry_secs": record.expiry_secs,
        "payload": text, "payload_hex": text.is_none().then(hex),
    })
}

fn record_text(batch: &OfflineBatch<'_>, seq: u64, record: &Record<'_>) -> String {
    let payload: String = String::from_utf8_lossy(record.payload)
        .chars()
        .take(200)
        .flat_map(char::escape_debug)
        .collect();
    let (track, epoch, device, topic) = (batch.track, batch.epoch.0, record.device, record.topic);
    format!(
        "{track} {epoch}:{seq} {} {device} {topic} {payload}",
        record.accepted_at.0
    )
}

fn ranges(list: &[(u64, u64)]) -> Vec<Value> {
    let range = |(first, last): &(u64, u64)| json!({ "first": first, "last": last, "count": last - first + 1 });
    list.iter().map(range).collect()
}

fn examined(examination: &Examination) -> Value {
    let tracks = examination.tracks.iter().map(|track| {
        json!({
            "track": track.name, "end": track.end, "acked": track.acked, "readable": track.readable,
            "missing": ranges(&track.missing), "declared": ranges(&track.declared),
        })
    });
    json!({
        "sound": examination.is_sound(), "missing": examination.missing(), "tracks": tracks.collect::<Vec<_>>(),
        "unsound_folders": examination.unsound_folders, "damaged_files": examination.damaged_files,
        "torn_bytes": examination.torn_bytes, "damaged_stretches": examination.damaged_stretches,
        "damaged_bytes": examination.damaged_bytes, "unreadable_bytes": examination.unreadable_bytes,
        "quarantines": examination.quarantines,
    })
}

fn print_examination(examination: &Examination) {
    for track in &examination.tracks {
        say(&format!(
            "{}: {} readable, acknowledged up to {}, next {}",
            track.name, track.readable, track.acked, track.end
        ));
        for (first, last) in &track.missing {
            let known = if track.declared.contains(&(*first, *last)) {
                ", declared"
            } else {
                ""
            };
            say(&format!(
                "  missing {first} to {last}: {} records{known}",
                last - first + 1
            ));
        }
    }
    let Examination {
        unsound_folders,
        damaged_files,
        quarantines,
        ..
    } = examination;
    say(&format!(
        "folders that cannot be opened: {unsound_folders:?}; damaged small files: {damaged_files:?}"
    ));
    let (torn, stretches, unreadable) = (
        examination.torn_bytes,
        examination.damaged_stretches,
        examination.unreadable_bytes,
    );
    say(&format!(
        "journals: {stretches} damaged stretches, {torn} torn bytes; tables: {unreadable} bytes in no whole block"
    ));
    say(&format!("quarantines: {quarantines:?}"));
    say(if examination.is_sound() {
        "sound"
    } else {
        "damaged: `doctor --repair`, or the next start, mends it and declares what is lost"
    });
}

/// A line that overwrites itself, on a terminal only.
fn progress(offline: &Offline) -> impl FnMut(usize) + use<> {
    let (all, visible) = (offline.segments(), std::io::stderr().is_terminal());
    move |done| {
        if visible {
            eprint!("\r{done} of {all} segments{}", if done == all { "\n" } else { "" });
        }
    }
}

fn say(line: &str) {
    // A reader that has gone away wants no line.
    drop(writeln!(std::io::stdout(), "{line}"));
}
