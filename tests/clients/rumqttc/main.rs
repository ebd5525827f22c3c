//! Scenarios with rumqttc: the first argument names one, the rest are those of its siblings in Python and JavaScript.
//!
//! In: arguments and, where a scenario waits for the test, lines "go" on standard input. Out: one JSON object per line on standard output.
//! A scenario runs once per version and QoS. The process ends with 0 only when all that it checks holds; a panic is what ends it else.

mod device;
mod exchange;
mod message;
mod polling;
mod properties;
mod state;
mod task;

use task::{Task, say};

fn main() {
    let mut args = std::env::args().skip(1);
    let scenario = args.next().expect("the first argument is the scenario");
    let task = Task::parse(args);
    let run: fn(&Task) = match scenario.as_str() {
        "messages" => exchange::messages,
        "forward" => exchange::forward,
        "retained" => state::retained,
        "will" => return state::wills(&task),
        "session" => state::session,
        "takeover" => state::takeover,
        "shared" => exchange::shared,
        "identifiers" => properties::identifiers,
        "request" => properties::request,
        "alias" => properties::alias,
        other => panic!("no scenario {other}"),
    };
    for round in task.rounds() {
        run(&round);
    }
    say("done", &[]);
}
