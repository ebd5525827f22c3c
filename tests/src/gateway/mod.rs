//! A gateway as a whole machine: the arm64 edge on its own kernel and ext4 in an emulator, whose power can be cut.
//!
//! In: the kit that `tests/gateway.sh` makes, a data directory, memory and clock of the machine. Out: forwarded MQTT and HTTP ports, the
//! console. A cut is the end of the emulator: the guest's memory and page cache are gone at any instant, and the [`Flash`] decides
//! what becomes of the sectors that the guest had written and not flushed. `docs/rigs.md` tells what is modelled and what not.

mod cpio;
mod flash;
mod image;
mod kit;
mod machine;
mod nbd;
mod sectors;

pub use flash::Flash;
pub use image::data_image;
pub use kit::Kit;
pub use machine::{Clock, Hardware, Machine};
pub use sectors::{FlashCut, FlashStats, Sectors};
