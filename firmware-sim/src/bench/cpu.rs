//! CPU time of a process, from `/proc/PID/stat`.
//!
//! In: process IDs. Out: user + system time so far. The clock ticks 100 times a second, so spans of seconds are needed.

use std::fs;
use std::io;
use std::time::Duration;

/// User and system time of a process with all its threads.
pub fn used_by(pid: u32) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse(&stat).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat is unreadable")))
}

/// The same for several processes together.
pub fn used_by_all(pids: &[u32]) -> io::Result<Duration> {
    pids.iter().map(|pid| used_by(*pid)).sum()
}

/// Fields 14 and 15; the name in field 2 may hold blanks and brackets, so counting begins behind the last bracket.
fn parse(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let per_second = rustix::param::clock_ticks_per_second();
    Some(Duration::from_secs_f64((user + system) as f64 / per_second as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_process_cannot_shift_the_fields() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 1 0 100 1 1";
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        assert_eq!(parse(stat), Some(Duration::from_secs_f64(200.0 / ticks)));
        assert_eq!(parse("7 (a"), None);
    }

    #[test]
    fn this_process_has_used_some_time() {
        let before = used_by(std::process::id()).expect("own process");
        assert!(used_by(std::process::id()).expect("own process") >= before);
    }
}
