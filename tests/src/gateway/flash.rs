//! The drive of a gateway: served to the emulator over a socket, cut with the machine's power.
//!
//! In: an image, orders. Out: the path of the socket. Owns the thread that serves and ends with it.
//! A cut goes in steps: [`Flash::fail`], from where on no request is answered, so that nothing is acknowledged behind it; the end of the
//! emulator; [`Flash::restore`]. [`Flash::arm`] lets the power go by itself at a flush, before that takes effect.

use std::io::{self, ErrorKind};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use rand::rngs::StdRng;

use super::nbd::{self, Drive};
use super::sectors::{FlashCut, FlashStats, Sectors};
use crate::wait;

/// How the connection of a killed emulator ends.
const GONE: [ErrorKind; 3] = [
    ErrorKind::UnexpectedEof,
    ErrorKind::BrokenPipe,
    ErrorKind::ConnectionReset,
];

/// A drive with a socket.
#[derive(Debug)]
pub struct Flash {
    socket: PathBuf,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared(Mutex<State>);

#[derive(Debug)]
struct State {
    sectors: Sectors,
    power: bool,
    /// Flushes until the power goes by itself.
    armed: Option<u64>,
    /// An emulator is connected, or what it sent before its end is not read yet.
    serving: bool,
    stop: bool,
}

impl Flash {
    /// Serves the image at `image` on a socket beside it.
    ///
    /// # Panics
    /// When image or socket cannot be opened.
    #[must_use]
    pub fn start(image: &Path) -> Self {
        let socket = image.with_extension("sock");
        let listener = UnixListener::bind(&socket).expect("a socket can be made beside the image");
        let shared = Arc::new(Shared(Mutex::new(State {
            sectors: Sectors::open(image).expect("the image can be opened"),
            power: true,
            armed: None,
            serving: false,
            stop: false,
        })));
        let inner = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            // One emulator at a time: the next one is served when the one before is gone.
            for stream in listener.incoming() {
                let (Ok(mut stream), false) = (stream, inner.lock().stop) else {
                    return;
                };
                inner.lock().serving = true;
                let ended = nbd::serve(&mut stream, &*inner);
                inner.lock().serving = false;
                if let Err(error) = ended
                    && !GONE.contains(&error.kind())
                {
                    eprintln!("the drive: {error}");
                }
            }
        });
        Self {
            socket,
            shared,
            thread: Some(thread),
        }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Lets the power go by itself when `flushes` more have taken effect and the next one comes.
    pub fn arm(&self, flushes: u64) {
        self.shared.lock().armed = Some(flushes);
    }

    /// True once the power has gone.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        !self.shared.lock().power
    }

    /// The power goes, unless it has gone. From now on no request is answered.
    pub fn fail(&self) {
        self.shared.lock().power = false;
    }

    /// The power comes back, with the drive as a cut leaves it. The emulator must be gone. Returns how many sectors were not flushed.
    ///
    /// # Panics
    /// When the emulator is still there, or the image cannot be written.
    pub fn restore(&self, how: FlashCut, rng: &mut StdRng) -> usize {
        wait::until_true("the emulator has left its drive", wait::SOON, || {
            !self.shared.lock().serving
        });
        let mut state = self.shared.lock();
        let waiting = state.sectors.cut(how, rng).expect("the image can be written");
        state.power = true;
        state.armed = None;
        waiting
    }

    /// What the drive has done.
    #[must_use]
    pub fn stats(&self) -> FlashStats {
        self.shared.lock().sectors.stats()
    }
}

impl Drop for Flash {
    fn drop(&mut self) {
        {
            let mut state = self.shared.lock();
            state.stop = true;
            state.power = false;
        }
        // Wakes the thread if it waits for an emulator; one that is still connected is gone before, since the machine is dropped first.
        UnixStream::connect(&self.socket).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn powered(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.lock();
        if state.power {
            return Ok(state);
        }
        Err(ErrorKind::BrokenPipe.into())
    }
}

impl State {
    fn flush(&mut self) -> io::Result<()> {
        if let Some(left) = &mut self.armed {
            if *left == 0 {
                self.power = false;
                return Err(ErrorKind::BrokenPipe.into());
            }
            *left -= 1;
        }
        self.sectors.flush()
    }
}

impl Drive for Shared {
    fn size(&self) -> u64 {
        self.lock().sectors.size()
    }

    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.powered()?.sectors.read(at, into)
    }

    fn write(&self, at: u64, bytes: &[u8], forced: bool) -> io::Result<()> {
        let mut state = self.powered()?;
        state.sectors.write(at, bytes)?;
        // Forces out more than was asked for, which a drive may do.
        if forced { state.flush() } else { Ok(()) }
    }

    fn flush(&self) -> io::Result<()> {
        self.powered()?.flush()
    }

    fn has_power(&self) -> bool {
        self.lock().power
    }
}
