//! Which platforms' programs run here: the processor's own, and those that the kernel hands
//! to an emulator (binfmt_misc, usually with QEMU's user mode).
//!
//! A handler helps only with flag `F`: its interpreter was opened when it was registered, and is
//! found inside a step's root as well. In a container the list of handlers is often not to be
//! seen while they work; then a program that does nothing but exit is tried.
//!
//! Source: `Documentation/admin-guide/binfmt-misc.rst` of Linux, elf(5).

use std::{
    io::Write,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use crate::oci::Platform;

/// Where the kernel lists handlers.
const HANDLERS: &str = "/proc/sys/fs/binfmt_misc";

/// Whether programs of a platform run in steps here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// By the processor itself, or by an emulator.
    Runs,
    /// There is an emulator that steps can't reach: its handler lacks flag `F`.
    NotFixed,
    /// By nothing.
    None,
}

/// Finds out. Programs are tried in `temp_dir`.
pub fn support(platform: &Platform, temp_dir: &Path) -> Support {
    let host = Platform::host();
    let same = platform.architecture == host.architecture;
    // Every x86-64 kernel for containers runs i386 programs.
    let older = (&*host.architecture, &*platform.architecture) == ("amd64", "386");
    if platform.os != host.os {
        return Support::None;
    }
    if same || older {
        return Support::Runs;
    }
    let Some(machine) = Machine::of(&platform.architecture) else {
        return Support::None;
    };
    match handlers(Path::new(HANDLERS)) {
        Some(handlers) => best(&handlers, machine),
        None if machine.program().is_some_and(|p| tried(&p, temp_dir)) => Support::Runs,
        None => Support::None,
    }
}

/// An architecture as ELF has it.
#[derive(Debug, Clone, Copy)]
struct Machine {
    wide: bool,
    big_endian: bool,
    number: u16,
    flags: u32,
    /// Instructions of `_exit(0)`; empty if we know none.
    exit: &'static [u8],
}

impl Machine {
    fn of(architecture: &str) -> Option<Self> {
        let (wide, big_endian, number, flags, exit): (_, _, _, _, &[u8]) = match architecture {
            // mov $60, %eax; xor %edi, %edi; syscall
            "amd64" => (true, false, 62, 0, b"\xb8\x3c\0\0\0\x31\xff\x0f\x05"),
            // mov $1, %eax; xor %ebx, %ebx; int $0x80
            "386" => (false, false, 3, 0, b"\xb8\x01\0\0\0\x31\xdb\xcd\x80"),
            // mov x8, #93; mov x0, #0; svc #0
            "arm64" => (
                true,
                false,
                183,
                0,
                b"\xa8\x0b\x80\xd2\0\0\x80\xd2\x01\0\0\xd4",
            ),
            // mov r7, #1; mov r0, #0; svc 0
            "arm" => (
                false,
                false,
                40,
                0x0500_0000,
                b"\x01\x70\xa0\xe3\0\0\xa0\xe3\0\0\0\xef",
            ),
            // li a7, 93; li a0, 0; ecall
            "riscv64" => (
                true,
                false,
                243,
                0,
                b"\x93\x08\xd0\x05\x13\x05\0\0\x73\0\0\0",
            ),
            // li 0, 1; li 3, 0; sc
            "ppc64le" => (true, false, 21, 2, b"\x01\0\0\x38\0\0\x60\x38\x02\0\0\x44"),
            // lghi %r2, 0; svc 1
            "s390x" => (true, true, 22, 0, b"\xa7\x29\0\0\x0a\x01"),
            "mips64le" => (true, false, 8, 0, b""),
            "loong64" => (true, false, 258, 0, b""),
            _ => return None,
        };
        Some(Self {
            wide,
            big_endian,
            number,
            flags,
            exit,
        })
    }

    fn half(&self, out: &mut Vec<u8>, value: u16) {
        out.extend(if self.big_endian {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        });
    }

    fn word(&self, out: &mut Vec<u8>, value: u32) {
        out.extend(if self.big_endian {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        });
    }

    /// An address or a size.
    fn long(&self, out: &mut Vec<u8>, value: u32) {
        match (self.wide, self.big_endian) {
            (false, _) => self.word(out, value),
            (true, true) => out.extend(u64::from(value).to_be_bytes()),
            (true, false) => out.extend(u64::from(value).to_le_bytes()),
        }
    }

    /// The first bytes of its executables, up to the machine's number.
    fn head(&self) -> Vec<u8> {
        let class = if self.wide { 2 } else { 1 };
        let order = if self.big_endian { 2 } else { 1 };
        let mut out = vec![0x7f, b'E', b'L', b'F', class, order, 1];
        out.resize(16, 0);
        self.half(&mut out, 2);
        self.half(&mut out, self.number);
        out
    }

    /// An executable that exits with 0: header, one segment, instructions.
    fn program(&self) -> Option<Vec<u8>> {
        /// Where it is loaded.
        const BASE: u32 = 0x0040_0000;
        if self.exit.is_empty() {
            return None;
        }
        let (header, segment): (u16, u16) = if self.wide { (64, 56) } else { (52, 32) };
        let start = u32::from(header + segment);
        let size = start + u32::try_from(self.exit.len()).ok()?;
        let mut out = self.head();
        self.word(&mut out, 1);
        self.long(&mut out, BASE + start);
        self.long(&mut out, header.into());
        self.long(&mut out, 0);
        self.word(&mut out, self.flags);
        for value in [header, segment, 1, 0, 0, 0] {
            self.half(&mut out, value);
        }
        // PT_LOAD, readable and executable; 32-bit files have the flags later.
        let access = 5;
        self.word(&mut out, 1);
        if self.wide {
            self.word(&mut out, access);
        }
        for value in [0, BASE, BASE, size, size] {
            self.long(&mut out, value);
        }
        if !self.wide {
            self.word(&mut out, access);
        }
        self.long(&mut out, 0x1_0000);
        out.extend(self.exit);
        Some(out)
    }
}

/// An enabled handler that goes by the content of files.
#[derive(Debug, PartialEq, Eq)]
struct Handler {
    fixed: bool,
    offset: usize,
    magic: Vec<u8>,
    mask: Vec<u8>,
}

/// All enabled handlers; none if they can't be seen.
fn handlers(directory: &Path) -> Option<Vec<Handler>> {
    match std::fs::read_to_string(directory.join("status")) {
        Ok(status) if status.trim() == "enabled" => {}
        Ok(_) => return Some(Vec::new()),
        Err(_) => return None,
    }
    let mut out = Vec::new();
    for entry in std::fs::read_dir(directory).ok()?.flatten() {
        // `register` and `status` are no handlers.
        if let Ok(text) = std::fs::read_to_string(entry.path()) {
            out.extend(handler(&text));
        }
    }
    Some(out)
}

fn handler(text: &str) -> Option<Handler> {
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map(str::trim)
    };
    if text.lines().next() != Some("enabled") {
        return None;
    }
    let magic = hex::decode(value("magic ")?).ok()?;
    let mask = match value("mask ") {
        Some(mask) => hex::decode(mask).ok()?,
        None => vec![0xff; magic.len()],
    };
    Some(Handler {
        fixed: value("flags:").is_some_and(|flags| flags.contains('F')),
        offset: value("offset ")?.parse().ok()?,
        magic,
        mask,
    })
}

impl Handler {
    fn takes(&self, head: &[u8]) -> bool {
        // What lies behind the head could be anything.
        let bytes = head.get(self.offset..).unwrap_or_default();
        let pairs = self.magic.iter().zip(&self.mask).zip(bytes);
        let mut pairs = pairs.map(|((magic, mask), byte)| (magic ^ byte) & mask == 0);
        !bytes.is_empty() && pairs.all(|same| same)
    }
}

fn best(handlers: &[Handler], machine: Machine) -> Support {
    let head = machine.head();
    let mut taking = handlers.iter().filter(|h| h.takes(&head)).peekable();
    if taking.peek().is_none() {
        return Support::None;
    }
    match taking.any(|handler| handler.fixed) {
        true => Support::Runs,
        false => Support::NotFixed,
    }
}

/// Whether a program runs to a good end.
fn tried(program: &[u8], temp_dir: &Path) -> bool {
    let run = || -> std::io::Result<bool> {
        let dir = tempfile::tempdir_in(temp_dir)?;
        let path = dir.path().join("exit");
        let mut file = std::fs::File::create(&path)?;
        file.write_all(program)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o700))?;
        drop(file);
        let mut command = Command::new(&path);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Ok(command.status()?.success())
    };
    // That it can't be executed is the answer.
    run().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `qemu-user-static` registers it.
    const ARM64: &str = "enabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: OCF\noffset 0\nmagic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";

    #[test]
    fn handlers_take_their_architecture_only() {
        let arm64 = handler(ARM64).unwrap();
        let machine = |name| Machine::of(name).unwrap();
        assert!(arm64.takes(&machine("arm64").head()));
        for other in [
            "amd64", "386", "arm", "riscv64", "ppc64le", "s390x", "loong64",
        ] {
            assert!(!arm64.takes(&machine(other).head()), "{other}");
        }
        let handlers = [arm64];
        assert_eq!(best(&handlers, machine("arm64")), Support::Runs);
        assert_eq!(best(&handlers, machine("arm")), Support::None);
        assert!(handler(&ARM64.replace("enabled", "disabled")).is_none());
        let late = [handler(&ARM64.replace("OCF", "OC")).unwrap()];
        assert_eq!(best(&late, machine("arm64")), Support::NotFixed);
    }

    #[test]
    fn handlers_are_found_where_the_kernel_shows_them() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(handlers(dir.path()), None);
        std::fs::write(dir.path().join("status"), "enabled\n").unwrap();
        std::fs::write(dir.path().join("qemu-aarch64"), ARM64).unwrap();
        std::fs::write(dir.path().join("wine"), "enabled\nextension .exe\n").unwrap();
        assert_eq!(handlers(dir.path()).unwrap().len(), 1);
        std::fs::write(dir.path().join("status"), "disabled\n").unwrap();
        assert_eq!(handlers(dir.path()).unwrap().len(), 0);
    }

    #[test]
    fn the_program_of_this_machine_exits() {
        let dir = tempfile::tempdir().unwrap();
        let own = Machine::of(&Platform::host().architecture).unwrap();
        assert!(tried(&own.program().unwrap(), dir.path()));
        assert!(!tried(b"nothing", dir.path()));
        assert_eq!(support(&Platform::host(), dir.path()), Support::Runs);
    }
}
