//! Work that may end its process, in a child that nobody misses.

use std::io::{Read, Write, pipe};
use std::panic::catch_unwind;
use std::ptr::null_mut;

use libc::{EINTR, RLIMIT_CORE, SIG_DFL, SIG_SETMASK, SIGALRM, SIGILL, rlimit, sigset_t};

/// After so many seconds a child that has not answered is ended: a lock that another thread held when it was forked is
/// never given back in it.
const PATIENCE: u32 = 10;

/// Whether `work` is true in a child process, which no signal that it raises, no panic and no endless wait takes the
/// caller along with.
pub(in crate::simd::amx) fn holds_in_child(work: fn() -> bool) -> bool {
    let Ok((mut reader, mut writer)) = pipe() else { return false };
    // SAFETY: the child has this thread alone; it does `work` and ends without unwinding or running what the parent
    // does at its end.
    match unsafe { libc::fork() } {
        -1 => false,
        0 => {
            dies_of_signals();
            let holds = catch_unwind(work).unwrap_or(false);
            // Nobody is left to tell of an error.
            let _ = writer.write_all(&[u8::from(holds)]);
            // SAFETY: ends the process.
            unsafe { libc::_exit(0) }
        }
        child => {
            drop(writer);
            let mut answer = [0];
            let holds = reader.read_exact(&mut answer).is_ok() && answer == [1];
            // SAFETY: waits for the child and asks for nothing; that somebody else has waited for it is an error like
            // others.
            while unsafe { libc::waitpid(child, null_mut(), 0) } < 0
                && std::io::Error::last_os_error().raw_os_error() == Some(EINTR)
            {}
            holds
        }
    }
}

/// Whatever handlers the process has, it ends quietly of a bad instruction, or when its time is over.
fn dies_of_signals() {
    let none = rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: default actions, no core file, no blocked signals (all zeros is the empty set on Linux), and a clock.
    unsafe {
        let unblocked: sigset_t = std::mem::zeroed();
        libc::signal(SIGILL, SIG_DFL);
        libc::signal(SIGALRM, SIG_DFL);
        libc::setrlimit(RLIMIT_CORE, &raw const none);
        libc::sigprocmask(SIG_SETMASK, &raw const unblocked, null_mut());
        libc::alarm(PATIENCE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad_instruction() -> bool {
        // SAFETY: raises `SIGILL`, which is what is tested.
        unsafe { std::arch::asm!("ud2") };
        true
    }

    #[test]
    fn what_ends_a_child_ends_nothing_else() {
        assert!(holds_in_child(|| vec![1; 1000].iter().sum::<i32>() == 1000));
        assert!(!holds_in_child(|| false));
        assert!(!holds_in_child(bad_instruction));
        assert!(!holds_in_child(|| std::process::abort()));
    }
}
