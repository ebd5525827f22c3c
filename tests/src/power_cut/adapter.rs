//! FUSE in front of the switch: one operation of the kernel is one of the file system. Decides nothing.
//!
//! In: requests of the kernel. Out: its answers. Files are opened with `direct_io`, so each read and write of a process comes here at
//! once, nothing is merged or kept in the kernel, and a shared mapping of a file fails visibly with `ENODEV`.

use std::ffi::OsStr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner, OpenFlags,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs,
    ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::faults::OpKind;
use super::image::{Ino, ROOT};
use super::pending::{Attr, FsError, FsResult, PendingFs};
use super::switch::{Op, Switch};

/// Nobody but the kernel that asks changes anything, so it may keep what it knows.
const KEEP: Duration = Duration::from_secs(3600);
/// What `statfs` says without a quota.
const ROOM: u64 = 8 << 30;

pub(super) struct Adapter(pub(super) Arc<Switch>);

impl Adapter {
    fn look<T>(&self, ino: INodeNo, act: impl FnOnce(&mut PendingFs) -> FsResult<T>) -> Result<T, Errno> {
        self.act((OpKind::Look, "look"), ino, String::new(), act)
    }

    fn act<T>(
        &self,
        (kind, what): (OpKind, &str),
        ino: INodeNo,
        detail: String,
        act: impl FnOnce(&mut PendingFs) -> FsResult<T>,
    ) -> Result<T, Errno> {
        let ino = ino.0;
        let op = Op {
            kind,
            ino,
            what,
            detail,
        };
        self.0.run(&op, act).map_err(errno)
    }

    fn sync(&self, (kind, what): (OpKind, &'static str), ino: INodeNo, reply: ReplyEmpty) {
        let slow = self.0.lock().faults.slow_sync();
        if slow.is_zero() {
            let done = self.act((kind, what), ino, String::new(), |fs| fs.sync(ino.0));
            return answer(done, reply);
        }
        // Others go on meanwhile, as on a slow disk; the bytes are durable only at the end.
        let (switch, starts) = (Self(Arc::clone(&self.0)), self.0.starts());
        thread::spawn(move || {
            thread::sleep(slow);
            if switch.0.starts() != starts {
                return reply.error(Errno::EIO);
            }
            let done = switch.act((kind, what), ino, String::new(), |fs| fs.sync(ino.0));
            answer(done, reply);
        });
    }
}

fn answer(done: Result<(), Errno>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn enter(done: Result<Attr, Errno>, reply: ReplyEntry) {
    match done {
        Ok(attr) => reply.entry(&KEEP, &file_attr(attr), Generation(0)),
        Err(error) => reply.error(error),
    }
}

fn errno(error: FsError) -> Errno {
    match error {
        FsError::NotFound => Errno::ENOENT,
        FsError::Exists => Errno::EEXIST,
        FsError::NotDir => Errno::ENOTDIR,
        FsError::IsDir => Errno::EISDIR,
        FsError::NotEmpty => Errno::ENOTEMPTY,
        FsError::Unsupported => Errno::EOPNOTSUPP,
        FsError::NoSpace => Errno::ENOSPC,
        FsError::Io => Errno::EIO,
        FsError::ReadOnly => Errno::EROFS,
    }
}

fn file_attr(attr: Attr) -> FileAttr {
    let (kind, nlink) = if attr.is_dir {
        (FileType::Directory, 2)
    } else {
        (FileType::RegularFile, 1)
    };
    FileAttr {
        ino: INodeNo(attr.ino),
        size: attr.len,
        blocks: attr.allocated / 512,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm: (attr.mode & 0o7777) as u16,
        nlink,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn text(name: &OsStr) -> String {
    name.to_string_lossy().into_owned()
}

impl Filesystem for Adapter {
    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.look(parent, |fs| {
            fs.lookup(parent.0, &text(name)).and_then(|ino| fs.attr(ino))
        });
        enter(found, reply);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.look(ino, |fs| fs.attr(ino.0)) {
            Ok(attr) => reply.attr(&KEEP, &file_attr(attr)),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<std::time::SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<std::time::SystemTime>,
        _chgtime: Option<std::time::SystemTime>,
        _bkuptime: Option<std::time::SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let act = |fs: &mut PendingFs| {
            if let Some(mode) = mode {
                fs.set_mode(ino.0, mode);
            }
            if let Some(size) = size {
                fs.set_len(ino.0, size)?;
            }
            fs.attr(ino.0)
        };
        let done = match size {
            Some(size) => self.act((OpKind::Write, "set length of"), ino, size.to_string(), act),
            None => self.look(ino, act),
        };
        match done {
            Ok(attr) => reply.attr(&KEEP, &file_attr(attr)),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let name = text(name);
        let made = self.act((OpKind::Name, "mkdir in"), parent, name.clone(), |fs| {
            let ino = fs.mkdir(parent.0, &name, mode & !umask)?;
            fs.attr(ino)
        });
        enter(made, reply);
    }

    fn mknod(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        let name = text(name);
        let made = self.act((OpKind::Name, "make in"), parent, name.clone(), |fs| {
            let ino = fs.create(parent.0, &name, mode & !umask)?;
            fs.attr(ino)
        });
        enter(made, reply);
    }

    fn create(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let name = text(name);
        let made = self.act((OpKind::Name, "create in"), parent, name.clone(), |fs| {
            let ino = fs.create(parent.0, &name, mode & !umask)?;
            fs.opened(ino);
            fs.attr(ino)
        });
        match made {
            Ok(attr) => reply.created(
                &KEEP,
                &file_attr(attr),
                Generation(0),
                FileHandle(0),
                FopenFlags::FOPEN_DIRECT_IO,
            ),
            Err(error) => reply.error(error),
        }
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = text(name);
        let done = self.act((OpKind::Name, "unlink in"), parent, name.clone(), |fs| {
            fs.unlink(parent.0, &name)
        });
        answer(done, reply);
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = text(name);
        let done = self.act((OpKind::Name, "rmdir in"), parent, name.clone(), |fs| {
            fs.rmdir(parent.0, &name)
        });
        answer(done, reply);
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (name, newname) = (text(name), text(newname));
        let done = self.act(
            (OpKind::Name, "rename in"),
            parent,
            format!("{name} -> {newname}"),
            |fs| {
                if !flags.is_empty() {
                    return Err(FsError::Unsupported);
                }
                fs.rename((parent.0, &name), (newparent.0, &newname))
            },
        );
        answer(done, reply);
    }

    fn link(&self, _req: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let name = text(newname);
        let done = self.act((OpKind::Name, "link in"), newparent, name.clone(), |fs| {
            fs.link(ino.0, newparent.0, &name)?;
            fs.attr(ino.0)
        });
        enter(done, reply);
    }

    fn open(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let done = self.look(ino, |fs| {
            fs.attr(ino.0)?;
            fs.opened(ino.0);
            Ok(())
        });
        match done {
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO),
            Err(error) => reply.error(error),
        }
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let done = self.look(ino, |fs| {
            fs.closed(ino.0);
            Ok(())
        });
        answer(done, reply);
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let range = (offset, u64::from(size));
        let done = self.act((OpKind::Read, "read"), ino, String::new(), |fs| {
            fs.read(ino.0, range.0, range.1)
        });
        match done {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let detail = format!("{offset}+{}", data.len());
        let done = self.act((OpKind::Write, "write"), ino, detail, |fs| {
            fs.write(ino.0, offset, data)
        });
        match done {
            Ok(()) => reply.written(u32::try_from(data.len()).expect("the kernel writes at most 16 MiB at once")),
            Err(error) => reply.error(error),
        }
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let end = offset.saturating_add(length);
        let done = self.act((OpKind::Write, "allocate in"), ino, end.to_string(), |fs| {
            let len = fs.attr(ino.0)?.len;
            match mode {
                0 => fs.set_len(ino.0, end.max(len)),
                _ => Err(FsError::Unsupported),
            }
        });
        answer(done, reply);
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.sync((OpKind::Sync, "sync"), ino, reply);
    }

    fn fsyncdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.sync((OpKind::SyncDir, "sync directory"), ino, reply);
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listed = self.look(ino, |fs| {
            let mut all = vec![(".".to_owned(), ino.0, true), ("..".to_owned(), ROOT, true)];
            for (name, child) in fs.list(ino.0)? {
                let is_dir = fs.attr(child)?.is_dir;
                all.push((name, child, is_dir));
            }
            Ok(all)
        });
        let listed: Vec<(String, Ino, bool)> = match listed {
            Ok(listed) => listed,
            Err(error) => return reply.error(error),
        };
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        for (at, (name, child, is_dir)) in listed.into_iter().enumerate().skip(skip) {
            let kind = if is_dir {
                FileType::Directory
            } else {
                FileType::RegularFile
            };
            if reply.add(INodeNo(child), at as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let (total, used) = {
            let state = self.0.lock();
            (state.fs.quota().unwrap_or(ROOM), state.fs.used())
        };
        let free = total.saturating_sub(used) / 4096;
        reply.statfs(total / 4096, free, free, 1 << 20, 1 << 20, 4096, 255, 4096);
    }
}
