//! Programs from which the system takes something.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// `PR_SET_MDWE` and its `PR_MDWE_REFUSE_EXEC_GAIN`: memory that was writable never becomes executable, as systemd's
/// `MemoryDenyWriteExecute` has it.
const DENY_WRITE_EXECUTE: [libc::c_ulong; 2] = [65, 1];

/// Lets a program run without executable memory of its own; starting it fails where the system cannot refuse that.
pub fn without_executable_memory(command: &mut Command) -> &mut Command {
    let deny = || {
        let [option, flags] = DENY_WRITE_EXECUTE;
        // SAFETY: a call of the system that takes numbers and touches no memory of ours.
        match unsafe { libc::prctl(option as libc::c_int, flags, 0, 0, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: what runs between fork and exec makes one call of the system, allocates nothing and takes no lock.
    unsafe { command.pre_exec(deny) }
}

/// Lets a program have so many bytes of address space.
pub fn with_address_space(command: &mut Command, bytes: u64) -> &mut Command {
    let limit = move || {
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
        // SAFETY: the system reads the limit, which lives until it returns.
        match unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: as above.
    unsafe { command.pre_exec(limit) }
}
