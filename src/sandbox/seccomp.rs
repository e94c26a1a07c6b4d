//! The system call filters: Docker's default profile.
//!
//! Two filters are stacked; the kernel takes the stricter answer. The first is the allow
//! list, compiled by `seccompiler`: what is not in it fails with EPERM. The second, a few
//! instructions, makes `clone3` (whose flags a filter can't see) and everything newer than
//! the table fail with ENOSYS, upon which C libraries fall back to older calls, where
//! EPERM would be a failure. It is loaded last: of two errors the later filter's counts.
//!
//! On x86-64 i386 programs run too (wine, 32-bit tool chains): `seccompiler` knows no such
//! architecture, so an allow list for them is put before what it compiles. Programs of any
//! other architecture of the processor are killed with SIGSYS.

use std::{collections::BTreeMap, io};

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

use super::seccomp_table::{ALLOWED, ALLOWED_HERE};
use crate::sys;

#[cfg(target_arch = "x86_64")]
const ARCH: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCH: TargetArch = TargetArch::aarch64;

/// Flags of `clone` that make namespaces (`CLONE_NEW*`).
const CLONE_NAMESPACES: u64 = 0x7E02_0000;

/// What `personality` may set: Linux, 32-bit and unlimited variants, and a query.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Address families up to the newest known that have no place in a container: among them
/// raw kernel crypto (38) and virtual machine sockets (40), which reach the host.
const NO_SOCKETS: [u64; 8] = [12, 19, 20, 23, 25, 34, 37, 38];
/// See [`NO_SOCKETS`].
const AF_VSOCK: u64 = 40;
/// The newest address family allowed (AF_MCTP).
const LAST_FAMILY: u64 = 45;

/// Numbers from here on are x32's, which the first filter refuses.
const X32: u32 = 0x4000_0000;

/// Loads both filters. Needs CAP_SYS_ADMIN in the user namespace.
pub(super) fn load() -> io::Result<()> {
    let allow = allow_list().map_err(io::Error::other)?;
    sys::load_seccomp_filter(&allow)?;
    sys::load_seccomp_filter(&unknown_calls())
}

fn allow_list() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED
        .iter()
        .chain(ALLOWED_HERE)
        // The second filter answers for it.
        .chain(&[libc::SYS_clone3])
        .map(|call| (*call, Vec::new()))
        .collect();
    let condition = SeccompCondition::new;
    let (word, long) = (SeccompCmpArgLen::Dword, SeccompCmpArgLen::Qword);

    let no_namespaces = condition(0, long, SeccompCmpOp::MaskedEq(CLONE_NAMESPACES), 0)?;
    rules.insert(
        libc::SYS_clone,
        vec![SeccompRule::new(vec![no_namespaces])?],
    );

    let mut personalities = Vec::new();
    for value in PERSONALITIES {
        let equal = condition(0, word.clone(), SeccompCmpOp::Eq, value)?;
        personalities.push(SeccompRule::new(vec![equal])?);
    }
    rules.insert(libc::SYS_personality, personalities);

    let mut families = vec![condition(0, word.clone(), SeccompCmpOp::Le, LAST_FAMILY)?];
    for family in NO_SOCKETS.into_iter().chain([AF_VSOCK]) {
        families.push(condition(0, word.clone(), SeccompCmpOp::Ne, family)?);
    }
    rules.insert(libc::SYS_socket, vec![SeccompRule::new(families)?]);

    let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let native: BpfProgram =
        SeccompFilter::new(rules, refuse, SeccompAction::Allow, ARCH)?.try_into()?;
    Ok(before_native(native))
}

// linux/filter.h: BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_JMP|BPF_JGE|BPF_K,
// BPF_RET|BPF_K.
const LOAD: u16 = 0x20;
const EQUAL: u16 = 0x15;
const AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Offset of the call's number in `struct seccomp_data`.
const NUMBER: u32 = 0;

/// One instruction; `jt` and `jf` are how many to skip if a comparison holds or not.
const fn step(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

const ALLOW: sock_filter = step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW);

const fn fail(errno: i32) -> sock_filter {
    step(
        RETURN,
        0,
        0,
        libc::SECCOMP_RET_ERRNO | errno.cast_unsigned(),
    )
}

#[cfg(not(target_arch = "x86_64"))]
fn before_native(native: BpfProgram) -> BpfProgram {
    native
}

/// The filter of i386 programs, then that of native ones.
#[cfg(target_arch = "x86_64")]
fn before_native(native: BpfProgram) -> BpfProgram {
    use super::seccomp_table_i386 as i386;

    // linux/filter.h: BPF_JMP|BPF_JA, BPF_JMP|BPF_JGT|BPF_K, BPF_JMP|BPF_JSET|BPF_K.
    const JUMP: u16 = 0x05;
    const GREATER: u16 = 0x25;
    const ANY_BIT: u16 = 0x45;
    /// Offsets in `struct seccomp_data`: the architecture, the low half of the first
    /// argument.
    const ARCHITECTURE: u32 = 4;
    const FIRST_ARGUMENT: u32 = 16;
    /// `AUDIT_ARCH_I386`.
    const I386: u32 = 0x4000_0003;

    let refuse = fail(libc::EPERM);
    let mut filter = vec![step(LOAD, 0, 0, NUMBER)];
    for call in i386::ALLOWED {
        filter.extend([step(EQUAL, 0, 1, *call), ALLOW]);
    }

    filter.extend([
        step(EQUAL, 0, 4, i386::CLONE),
        step(LOAD, 0, 0, FIRST_ARGUMENT),
    ]);
    let namespaces = u32::try_from(CLONE_NAMESPACES).unwrap_or(u32::MAX);
    filter.extend([step(ANY_BIT, 1, 0, namespaces), ALLOW, refuse.clone()]);

    let skip = |n: usize| u8::try_from(n).unwrap_or(u8::MAX);
    let values = PERSONALITIES.map(|v| u32::try_from(v).unwrap_or_default());
    filter.push(step(
        EQUAL,
        0,
        skip(2 + 2 * values.len()),
        i386::PERSONALITY,
    ));
    filter.push(step(LOAD, 0, 0, FIRST_ARGUMENT));
    for value in values {
        filter.extend([step(EQUAL, 0, 1, value), ALLOW]);
    }
    filter.push(refuse.clone());

    filter.extend([step(EQUAL, 1, 0, i386::SOCKET), refuse.clone()]);
    filter.push(step(LOAD, 0, 0, FIRST_ARGUMENT));
    for family in NO_SOCKETS.into_iter().chain([AF_VSOCK]) {
        let family = u32::try_from(family).unwrap_or_default();
        filter.extend([step(EQUAL, 0, 1, family), refuse.clone()]);
    }
    let last = u32::try_from(LAST_FAMILY).unwrap_or_default();
    filter.extend([step(GREATER, 0, 1, last), refuse, ALLOW]);

    let length = u32::try_from(filter.len()).unwrap_or(u32::MAX);
    let mut program = vec![
        step(LOAD, 0, 0, ARCHITECTURE),
        step(EQUAL, 1, 0, I386),
        // Conditional jumps reach 255 instructions only.
        step(JUMP, 0, 0, length),
    ];
    program.extend(filter);
    program.extend(native);
    program
}

/// ENOSYS for `clone3` and for calls newer than the table; everything else is allowed here.
fn unknown_calls() -> BpfProgram {
    let newest = ALLOWED.iter().chain(ALLOWED_HERE).max().copied();
    let number = |call: c_long| u32::try_from(call).unwrap_or(u32::MAX);
    vec![
        // The same for i386: numbers of calls this new are equal on all architectures.
        step(LOAD, 0, 0, NUMBER),
        step(EQUAL, 3, 0, number(libc::SYS_clone3)),
        step(AT_LEAST, 1, 0, X32),
        step(AT_LEAST, 1, 0, number(newest.unwrap_or_default()) + 1),
        ALLOW,
        fail(libc::ENOSYS),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would do: runs a filter on `struct seccomp_data`.
    fn verdict(arch: u32, program: &[sock_filter], call: c_long, args: &[u64]) -> u32 {
        let mut data = Vec::new();
        data.extend(u32::try_from(call).unwrap().to_le_bytes());
        data.extend(arch.to_le_bytes());
        data.extend(0u64.to_le_bytes());
        for n in 0..6 {
            data.extend(args.get(n).unwrap_or(&0).to_le_bytes());
        }
        let (mut at, mut a) = (0, 0u32);
        loop {
            let step = &program[at];
            at += 1;
            let jump = |yes: bool| usize::from(if yes { step.jt } else { step.jf });
            match step.code {
                0x20 => {
                    let from = usize::try_from(step.k).unwrap();
                    a = u32::from_le_bytes(data[from..from + 4].try_into().unwrap());
                }
                0x05 => at += usize::try_from(step.k).unwrap(),
                0x15 => at += jump(a == step.k),
                0x25 => at += jump(a > step.k),
                0x35 => at += jump(a >= step.k),
                0x45 => at += jump(a & step.k != 0),
                0x54 => a &= step.k,
                0x06 => return step.k,
                code => panic!("instruction {code:#x}"),
            }
        }
    }

    /// The error number a step sees; none if the call is allowed.
    fn error(call: c_long, args: &[u64]) -> Option<i32> {
        let native = if cfg!(target_arch = "x86_64") {
            0xc000_003e
        } else {
            0xc000_00b7
        };
        error_on(native, call, args)
    }

    fn error_on(arch: u32, call: c_long, args: &[u64]) -> Option<i32> {
        let allow = allow_list().unwrap();
        let (first, second) = (
            verdict(arch, &allow, call, args),
            verdict(arch, &unknown_calls(), call, args),
        );
        let strict = if second == libc::SECCOMP_RET_ALLOW {
            first
        } else {
            second
        };
        (strict != libc::SECCOMP_RET_ALLOW).then(|| {
            assert_eq!(
                strict & libc::SECCOMP_RET_ACTION_FULL,
                libc::SECCOMP_RET_ERRNO
            );
            i32::try_from(strict & libc::SECCOMP_RET_DATA).unwrap()
        })
    }

    #[test]
    fn verdicts_are_those_of_dockers_profile() {
        let (perm, nosys) = (Some(libc::EPERM), Some(libc::ENOSYS));
        assert_eq!(error(libc::SYS_openat, &[]), None);
        assert_eq!(error(libc::SYS_ptrace, &[]), None);
        assert_eq!(error(libc::SYS_chroot, &[]), None);
        assert_eq!(error(libc::SYS_keyctl, &[]), perm);
        assert_eq!(error(libc::SYS_unshare, &[]), perm);
        assert_eq!(error(libc::SYS_clone3, &[]), nosys);
        assert_eq!(error(466, &[]), None, "removexattrat");
        assert_eq!(error(467, &[]), nosys);
        assert_eq!(error(0x4000_0000, &[]), perm, "x32");
        let sigchld = 17;
        assert_eq!(error(libc::SYS_clone, &[sigchld]), None);
        assert_eq!(
            error(libc::SYS_clone, &[0x1000_0000 | sigchld]),
            perm,
            "CLONE_NEWUSER"
        );
        assert_eq!(
            error(libc::SYS_clone, &[0x0002_0000 | sigchld]),
            perm,
            "CLONE_NEWNS"
        );
        assert_eq!(
            error(libc::SYS_personality, &[0x4_0000]),
            perm,
            "no randomisation"
        );
        assert_eq!(error(libc::SYS_personality, &[0xffff_ffff]), None);
        assert_eq!(error(libc::SYS_personality, &[8]), None);
        for (family, expected) in [
            (1, None),
            (2, None),
            (10, None),
            (16, None),
            (17, None),
            (38, perm),
            (40, perm),
            (46, perm),
        ] {
            assert_eq!(
                error(libc::SYS_socket, &[family]),
                expected,
                "family {family}"
            );
        }
        // The kernel looks at the low half of the word only, and so must the filter.
        assert_eq!(error(libc::SYS_socket, &[1 << 32 | 40]), perm);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn programs_of_i386_get_the_same_verdicts() {
        let error = |call: c_long, args: &[u64]| error_on(0x4000_0003, call, args);
        let (perm, nosys) = (Some(libc::EPERM), Some(libc::ENOSYS));
        assert_eq!(error(1, &[]), None, "exit");
        assert_eq!(error(11, &[]), None, "execve");
        assert_eq!(error(403, &[]), None, "clock_gettime64");
        assert_eq!(error(21, &[]), perm, "mount");
        assert_eq!(error(288, &[]), perm, "keyctl");
        assert_eq!(error(310, &[]), perm, "unshare");
        assert_eq!(error(404, &[]), perm, "clock_settime64");
        assert_eq!(error(435, &[]), nosys, "clone3");
        assert_eq!(error(500, &[]), nosys);
        assert_eq!(error(120, &[17]), None);
        assert_eq!(error(120, &[0x1000_0000]), perm);
        assert_eq!(error(136, &[8]), None);
        assert_eq!(error(136, &[0xffff_ffff]), None);
        assert_eq!(error(136, &[9]), perm);
        assert_eq!(error(359, &[2]), None);
        assert_eq!(error(359, &[45]), None);
        assert_eq!(error(359, &[40]), perm);
        assert_eq!(error(359, &[46]), perm);
    }

    #[test]
    fn the_allow_list_compiles_and_fits() {
        let program = allow_list().unwrap();
        assert!(program.len() <= 4096, "{} instructions", program.len());
    }

    #[test]
    fn no_call_is_listed_twice_and_the_dangerous_ones_not_at_all() {
        let mut all: Vec<_> = ALLOWED.iter().chain(ALLOWED_HERE).collect();
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
        for call in [
            libc::SYS_mount,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_bpf,
            libc::SYS_kexec_load,
            libc::SYS_init_module,
            libc::SYS_open_by_handle_at,
            libc::SYS_perf_event_open,
            libc::SYS_io_uring_setup,
            libc::SYS_userfaultfd,
            libc::SYS_swapon,
            libc::SYS_reboot,
        ] {
            assert!(!all.contains(&&call), "{call}");
        }
    }
}
