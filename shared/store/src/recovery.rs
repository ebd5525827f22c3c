//! Opens a store directory: claims it, heals it, takes stock, and says what is missing.
//!
//! Order: claim and lock; chain and tracks; journals healed; database opened, or moved to quarantine and begun anew; survey;
//! positions continued above the high-water file; new gaps committed; high-water file written. Only then is anything accepted.
//! Holds I5 over restarts and damage: numbers continue above whatever was ever known to be synced.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fellbeck_core::incarnation::{Incarnation, IncarnationChain};
use fellbeck_core::ledger::DropReason;
use fellbeck_core::varint::{put_bytes, take_bytes};
use fellbeck_core::{CommitNumber, Epoch, Seq, TrackId};

use crate::ballast::Ballast;
use crate::catalog::Track;
use crate::config::{Layout, StoreConfig};
use crate::directory::{Directory, Format, Lock, Twice};
use crate::doctor;
use crate::engine::Engine;
use crate::entry::Gap;
use crate::error::{HaltError, OpenError};
use crate::high_water::{HighWater, HighWaterFile};
use crate::in_use::InUse;
use crate::key::{gap_value, index};
use crate::losses;
use crate::policy::TrackPolicy;
use crate::report::OpenReport;
use crate::set_aside::{engine_error, open_or_set_aside};
use crate::shared::{Opened, Shared};
use crate::survey::Survey;
use crate::writer::Plan;

/// Names of the small files.
pub(crate) const CHAIN: &str = "chain";
pub(crate) const TRACKS: &str = "tracks";

/// An open database, before the threads start.
pub(crate) struct Recovered {
    pub(crate) shared: Arc<Shared>,
    pub(crate) engine: Engine,
    pub(crate) report: OpenReport,
    pub(crate) high_water: HighWaterFile,
    pub(crate) lock: Lock,
    pub(crate) in_use: InUse,
    pub(crate) ballast: Ballast,
    pub(crate) plan: Plan,
}

pub(crate) fn recover(root: &Path, config: StoreConfig) -> Result<Recovered, OpenError> {
    let (dir, lock, format) = Directory::claim(root, config.layout)?;
    let Format {
        log_id,
        created,
        remade,
    } = format;
    let ballast = Ballast::of(&dir, config.quota_bytes);
    ballast.drop_if_needed();
    let distrust = InUse::found(&dir) && !created;
    InUse::begin(&dir)?;
    let mut report = OpenReport {
        created,
        ..OpenReport::default()
    };
    report.remade.extend(remade.then_some("FORMAT"));
    let found = HighWaterFile::read(&dir).map_err(|source| dir.io(root, source))?;
    if found.damaged {
        report.remade.push("high-water");
    }
    let mut high_water = found.file;
    let chain = continue_chain(&dir, high_water.last().epoch, &mut report)?;
    let mut tracks = number_tracks(&dir, &config, &mut report)?;
    for (track, (_, done)) in tracks.iter_mut().zip(&high_water.last().tracks) {
        if !track.sessions_only {
            track.acked = *done;
        }
    }
    if high_water.is_new() {
        // A first open that was cut short leaves the copy of a small file before the file itself.
        report.remade.clear();
        // Nothing was ever accepted here: a database that is there was not finished when the first open was cut short.
        doctor::clear_unfinished(&dir.database()).map_err(|source| dir.io(&dir.database(), source))?;
    }
    if distrust {
        high_water.write_again().map_err(|source| dir.io(root, source))?;
    }
    let findings = doctor::heal(&dir.database(), distrust).map_err(|source| dir.io(&dir.database(), source))?;
    report.torn_bytes = findings.torn_bytes;
    report.damaged_stretches = findings.damaged_stretches;
    report.damaged_bytes = findings.damaged_bytes;

    let (engine, mut survey) = open_or_set_aside(&dir, &config, &tracks, &mut report)?;
    settle(&mut survey, high_water.last(), &chain, &mut report);
    let newest = commit_findings(&engine, &mut survey, &report).map_err(|error| engine_error(&dir, &error))?;
    dir.sync().map_err(|source| dir.io(root, source))?;
    let plan = plan(&config, &mut survey);
    let opened = Opened {
        catalog: survey.catalog,
        engine: engine.clone(),
        newest,
        log_id,
        incarnations: chain.as_slice().to_vec(),
    };
    let shared = Shared::new(config, opened);
    high_water
        .write(HighWater::of(&shared))
        .map_err(|source| dir.io(root, source))?;
    tell(root, &report, &shared);
    Ok(Recovered {
        shared,
        engine,
        report,
        high_water,
        lock,
        in_use: InUse::of(&dir),
        ballast,
        plan,
    })
}

/// Writes this open's incarnation.
fn continue_chain(dir: &Directory, known: Epoch, report: &mut OpenReport) -> Result<IncarnationChain, OpenError> {
    let mut chain = match dir.read_twice(CHAIN)? {
        Twice::Missing if known == Epoch(0) => IncarnationChain::default(),
        Twice::Missing | Twice::Lost => remade(report),
        Twice::Whole(bytes) => IncarnationChain::decode(&bytes).unwrap_or_else(|_| remade(report)),
        Twice::Mended(bytes) => {
            report.remade.push("chain");
            IncarnationChain::decode(&bytes).unwrap_or_default()
        }
    };
    let mut id: [u8; 16] = rand::random();
    id[0] |= 1;
    let next = known.0.checked_add(1).map(Epoch);
    let newest = next.and_then(|next| chain.succeed(id, next).ok());
    let newest = newest.ok_or_else(|| OpenError::Damaged {
        file: dir.path(CHAIN),
        what: "its newest incarnation, or that of the high-water file, has no successor",
    })?;
    dir.replace_twice(CHAIN, &chain.encode())?;
    report.incarnation = Some(newest);
    Ok(chain)
}

fn remade(report: &mut OpenReport) -> IncarnationChain {
    report.remade.push("chain");
    IncarnationChain::default()
}

/// Gives each track its number, for the life of the directory.
fn number_tracks(dir: &Directory, config: &StoreConfig, report: &mut OpenReport) -> Result<Vec<Track>, OpenError> {
    let damaged = |what| OpenError::Damaged {
        file: dir.path(TRACKS),
        what,
    };
    let mut rewrite = false;
    let known = match dir.read_twice(TRACKS)? {
        Twice::Missing => Vec::new(),
        Twice::Lost => {
            return Err(damaged(
                "neither it nor its copy can be read, and only they tell which track is which",
            ));
        }
        Twice::Whole(bytes) => {
            // A directory of an earlier version has no copy.
            rewrite = !dir.has_copy(TRACKS);
            bytes
        }
        Twice::Mended(bytes) => {
            report.remade.push("tracks");
            rewrite = true;
            bytes
        }
    };
    let mut names = track_names(&known).ok_or_else(|| damaged("it does not decode"))?;
    let before = names.len();
    for name in &config.tracks {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    if names.len() > before || rewrite {
        let mut bytes = Vec::new();
        names.iter().for_each(|name| put_bytes(&mut bytes, name.as_bytes()));
        dir.replace_twice(TRACKS, &bytes)?;
    }
    let acknowledged = |name: &String| config.layout == Layout::Edge && !config.sessions_only.contains(name);
    let policy = |name: &String| {
        let named = config.policies.iter().find(|(track, _)| track == name);
        named.map_or_else(TrackPolicy::default, |(_, policy)| *policy)
    };
    let track = |name: String| Track {
        sessions_only: !acknowledged(&name),
        policy: policy(&name),
        name,
        end: Seq(1),
        ..Track::default()
    };
    Ok(names.into_iter().map(track).collect())
}

/// The names in the file of tracks, by number.
pub(crate) fn track_names(bytes: &[u8]) -> Option<Vec<String>> {
    let (mut names, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        names.push(std::str::from_utf8(take_bytes(&mut rest)?).ok()?.to_owned());
    }
    Some(names)
}

/// Continues positions above the high-water file and turns whatever is missing into gaps.
fn settle(survey: &mut Survey, mark: &HighWater, chain: &IncarnationChain, report: &mut OpenReport) {
    report.recovered = survey.commit;
    report.high_water = mark.commit;
    let before = chain
        .as_slice()
        .iter()
        .rev()
        .nth(1)
        .map(|incarnation: &Incarnation| incarnation.epoch);
    let epoch = before.unwrap_or(mark.epoch);
    let gap = |first: Seq, end: Seq, reason| Gap {
        epoch,
        first,
        last: Seq(end.0 - 1),
        reason,
    };
    for (track, first, end) in std::mem::take(&mut survey.holes) {
        // What was trimmed was done with, even where the store has forgotten that.
        let done = mark.tracks.get(track.0 as usize).map_or(Seq(0), |(_, done)| *done);
        let first = first.max(done.next());
        if first < end {
            report.lose(track, gap(first, end, DropReason::Damaged));
        }
    }
    for (number, track) in survey.catalog.tracks.iter_mut().enumerate() {
        let id = TrackId(number as u32);
        let (end, done) = mark.tracks.get(number).copied().unwrap_or_default();
        if track.policy.memory_bytes.is_some() && track.segments.is_empty() {
            track.end = track.end.max(end).max(Seq(1));
            track.acked = Seq(track.acked.0.min(track.end.0 - 1));
            if track.acked.next() < track.end {
                // Not in the index: it is found anew at each open, until it is acknowledged.
                track.gaps = vec![gap(track.acked.next(), track.end, DropReason::Volatile)];
            }
            track.ring.reserved = track.end;
            continue;
        }
        // What was acknowledged was acknowledged, even where the store has forgotten it.
        if !track.sessions_only {
            track.acked = track.acked.max(done);
        }
        // Only what was acknowledged is ever trimmed where an uplink reads: nothing else may be missing in front.
        let wanted = track.acked.next();
        let held = track.segments.front().map_or(track.end, |(first, _)| *first);
        if !track.sessions_only && held > wanted && track.gap_at(wanted).is_none() {
            report.lose(id, gap(wanted, held, DropReason::Damaged));
        }
        track.end = track.end.max(wanted).max(done.next());
        if end > track.end {
            report.lose(id, gap(track.end, end, DropReason::LostSuffix));
            track.end = end;
        }
    }
    for (track, gap) in &report.gaps {
        let gaps = &mut survey.catalog.tracks[track.0 as usize].gaps;
        gaps.push(*gap);
        gaps.sort_by_key(|gap| gap.first);
    }
    survey.commit = survey.commit.max(mark.commit);
}

/// Makes gaps and corrections of the index durable. Returns the newest commit.
fn commit_findings(engine: &Engine, survey: &mut Survey, report: &OpenReport) -> Result<CommitNumber, HaltError> {
    let forgotten = report.recovered < survey.commit;
    let floor_lost = report.is_damaged() && survey.floor.is_none();
    if floor_lost {
        // It may be among what is lost: nothing is trimmed as read before the sessions have said so again.
        survey.floor = Some(CommitNumber(1));
    }
    if report.gaps.is_empty() && survey.stale_index.is_empty() && !forgotten && !floor_lost {
        return Ok(survey.commit);
    }
    let commit = survey.commit.next();
    let mut batch = engine.batch();
    for (track, gap) in &report.gaps {
        batch.insert(&engine.index, index::gap(*track, gap.first), gap_value(gap));
    }
    for id in &survey.stale_index {
        batch.remove(&engine.index, index::sealed(*id));
    }
    for (number, track) in survey
        .catalog
        .tracks
        .iter()
        .enumerate()
        .filter(|(_, track)| track.acked > Seq(0))
    {
        batch.insert(
            &engine.index,
            index::acked(TrackId(number as u32)),
            track.acked.0.to_be_bytes(),
        );
    }
    if let Some(floor) = survey.floor.filter(|_| floor_lost) {
        batch.insert(&engine.index, index::FLOOR, floor.0.to_be_bytes());
    }
    batch.insert(&engine.index, index::COMMIT, commit.0.to_be_bytes());
    batch.commit()?;
    Ok(commit)
}

/// Chooses the segments to go on with, which can only be the newest of a track, or of all in the cloud; seals all others.
fn plan(config: &StoreConfig, survey: &mut Survey) -> Plan {
    let catalog = &mut survey.catalog;
    let newest: Vec<Option<u64>> = match config.layout {
        Layout::Edge => catalog
            .tracks
            .iter()
            .map(|track| track.segments.back().map(|(_, id)| *id))
            .collect(),
        Layout::Cloud => vec![catalog.segments.keys().next_back().copied()],
    };
    let goes_on = |id: &u64| {
        let segment = &catalog.segments[id];
        !segment.indexed && segment.seal.bytes < config.segment_bytes
    };
    let active: Vec<Option<u64>> = newest.into_iter().map(|id| id.filter(goes_on)).collect();
    let mut unindexed = std::mem::take(&mut survey.unindexed);
    unindexed.retain(|id| !active.contains(&Some(*id)));
    for (id, segment) in &mut catalog.segments {
        segment.sealed = !active.contains(&Some(*id));
    }
    Plan {
        active,
        next_segment: survey.next_segment,
        dirty: std::mem::take(&mut survey.dirty),
        unindexed,
        floor: survey.floor,
        spares: std::mem::take(&mut survey.spares),
    }
}

fn tell(root: &Path, report: &OpenReport, shared: &Shared) {
    let dir: PathBuf = root.to_owned();
    for (track, gap) in &report.gaps {
        losses::tell(&shared.catalog().tracks[track.0 as usize].name, gap);
    }
    if report.high_water > report.recovered {
        let (recovered, high_water) = (report.recovered.0, report.high_water.0);
        tracing::error!(recovered, high_water, "commits that were synced are missing");
        metrics::counter!("fellbeck_store_lost_commits_total").increment(high_water - recovered);
    }
    for file in &report.remade {
        tracing::error!(file, "was unreadable and is made anew");
    }
    metrics::counter!("fellbeck_store_damaged_bytes_total").increment(report.damaged_bytes);
    let segments = shared.catalog().segments.len();
    tracing::info!(dir = %dir.display(), epoch = shared.epoch.0, commit = shared.newest().0, segments, "store is open");
}
