//! A file system without a free byte under the real edge (P2, P6): it opens by its ballast, takes nothing, and goes on when there is space.
//!
//! In: an edge on a small file system of its own, a file that fills it to the last byte. Out: what was acknowledged before and behind it reaches
//! the cloud; nobody does more than a supervisor does.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use fellbeck_tests::mqtt::Version;
use fellbeck_tests::{Device, DevicePlan, Reader, ReaderPlan, World, judge, names, wait};

/// A file system that goes with this.
struct Mounted(PathBuf);

impl Mounted {
    fn new(at: &Path) -> Self {
        fs::create_dir_all(at).expect("a mount point can be made");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=96m", "tmpfs"])
            .arg(at)
            .status();
        assert!(
            mount.is_ok_and(|status| status.success()),
            "a small file system can be mounted (as root)"
        );
        Self(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}

/// Takes every free byte.
fn fill(at: &Path) {
    let mut file = File::create(at).expect("a file can be made");
    let block = vec![1; 64 << 10];
    for size in [block.len(), 4096, 1] {
        while file.write(&block[..size]).is_ok_and(|written| written > 0) {}
    }
}

#[test]
fn an_edge_without_a_free_byte_opens_and_goes_on_by_itself_when_there_is_space() {
    let mut world = World::prepare();
    let mounted = Mounted::new(&world.edge.data_dir());
    let filler = mounted.0.join("filler");
    world
        .edge
        .set(names::QUOTA_KEY, &(32 << 20).to_string())
        .set("store.reserve", &(8 << 20).to_string());
    world.start_cloud();
    world.join();
    let reader = Reader::start(&ReaderPlan::all("reader", Version::V5, 2), &world.cloud.mqtt());
    world.link.cut();
    world.edge.start();
    let ballast = world.edge.data_dir().join("store/ballast");
    assert!(
        fs::metadata(&ballast).is_ok_and(|file| file.len() == 8 << 20),
        "there is a ballast"
    );
    let devices: Vec<Device> = (0..2)
        .map(|n| {
            Device::start(
                DevicePlan::steady(&format!("dev-{n}"), Version::BOTH[n], 2),
                world.edge.mqtt(),
            )
        })
        .collect();
    devices.iter().for_each(|device| device.await_acked(100));

    fill(&filler);
    world.edge.kill();
    world.edge.start();
    assert!(!ballast.exists(), "the ballast was given up");
    // What the ballast gave is taken, too: nothing is left, whatever the node does.
    fill(&mounted.0.join("filler-2"));
    let mut before = (0, 0);
    wait::until_true("nothing more is acknowledged", wait::EVENTUALLY, || {
        world.edge.supervise();
        wait::last(std::time::Duration::from_millis(1500));
        let now = (devices[0].acked(), devices[1].acked());
        std::mem::replace(&mut before, now) == now
    });

    fs::remove_file(&filler).expect("the file can be removed");
    fs::remove_file(mounted.0.join("filler-2")).expect("the file can be removed");
    let goals: Vec<usize> = devices.iter().map(|device| device.acked() + 100).collect();
    wait::until_true("devices are served again", wait::EVENTUALLY, || {
        world.edge.supervise();
        devices.iter().zip(&goals).all(|(device, goal)| device.acked() >= *goal)
    });
    wait::until_true("the ballast is back", wait::EVENTUALLY, || ballast.exists());
    world.link.heal();
    let books: Vec<_> = devices.into_iter().map(Device::settle).collect();
    reader.await_all_acked(&books);
    let verdict = judge(&books, &reader.book());
    assert_eq!((verdict.lost, verdict.disordered), (0, 0), "{verdict:?}");
    drop(world);
    drop(mounted);
}
