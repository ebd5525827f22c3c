//! Golden files: bytes that a released version wrote, and that every later one must read. Included by the golden tests of each crate.
//!
//! They lie in `tests/golden/v1` of the crate under test. With `FELLBECK_WRITE_GOLDEN=1` a test writes those that are missing;
//! no existing file is ever written over: a frozen format does not change, another version gets files of its own.

use std::fmt::Debug;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

const DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v1");

/// Held while a file is looked for and written: several tests of a process may want the same one.
static WRITING: Mutex<()> = Mutex::new(());

/// Bytes of the golden file `name`. `make` is asked for them only where the file is missing and may be written.
pub(crate) fn golden(name: &str, make: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    let path = Path::new(DIR).join(name);
    if std::env::var_os("FELLBECK_WRITE_GOLDEN").is_some_and(|set| set == "1") {
        let _writing = WRITING.lock().expect("no test fails while it writes");
        if !path.exists() {
            fs::create_dir_all(DIR).expect("the folder of golden files can be made");
            let file = File::create_new(&path);
            let written = file.and_then(|mut file| file.write_all(&make()));
            written.expect("a missing golden file can be written");
        }
    }
    fs::read(&path).unwrap_or_else(|error| panic!("golden file {}: {error}", path.display()))
}

/// The golden file `name`, which the encoder must give byte for byte.
pub(crate) fn golden_of(name: &str, encoded: &[u8]) -> Vec<u8> {
    let stored = golden(name, || encoded.to_vec());
    assert_eq!(
        hex(encoded),
        hex(&stored),
        "{name}: the encoder no longer writes these bytes"
    );
    stored
}

/// Cuts `bytes` at every length and flips every bit: each gives an error (`None`) or another value than the whole, never a panic.
///
/// `ignored` names the bytes that a reader does not look at.
pub(crate) fn assert_damage_shows<T: PartialEq + Debug>(
    bytes: &[u8],
    ignored: impl Fn(usize) -> bool,
    decode: impl Fn(&[u8]) -> Option<T>,
) {
    let whole = decode(bytes).expect("the undamaged bytes decode");
    for cut in 0..bytes.len() {
        assert_ne!(decode(&bytes[..cut]).as_ref(), Some(&whole), "cut at {cut}");
    }
    let mut damaged = bytes.to_vec();
    for at in (0..bytes.len()).filter(|at| !ignored(*at)) {
        for bit in 0..8 {
            damaged[at] ^= 1 << bit;
            assert_ne!(
                decode(&damaged).as_ref(),
                Some(&whole),
                "bit {bit} of byte {at} flipped"
            );
            damaged[at] ^= 1 << bit;
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
