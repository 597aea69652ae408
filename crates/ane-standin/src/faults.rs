//! What goes wrong on purpose, and what the machine is like.
//!
//! Settings are words with `;` between them:
//!
//! | word | what happens |
//! |---|---|
//! | `fail=SYMBOL@N:CODE` | the Nth call (from 1) of a function answers CODE |
//! | `null=SYMBOL@N` | the Nth call succeeds and gives nothing |
//! | `hang=SYMBOL@N:MS` | the Nth call comes back after MS milliseconds |
//! | `crash=SYMBOL@N` | the Nth call ends the process |
//! | `slow=SYMBOL:MS` | every call takes MS milliseconds longer |
//! | `corrupt=N` | the Nth run leaves rubbish and answers that it failed |
//! | `print=TEXT` | compiles print TEXT |
//! | `reject=OP` | programs with this op of MIL, or native layers of this kind, do not compile |
//! | `execute=nothing` | runs compute nothing |
//! | `chip=NAME` | the chip, such as `h13`; `h17s` by default |
//! | `programs=N` | how many programs can be loaded |
//! | `reopen=no` | bundles of other processes are refused |
//! | `dense` | rows of surfaces have no padding |
//! | `reset` | forgets all settings and counts |
//!
//! Messages to objects count under their selectors. What is not understood ends the process: a function that is none, or a chip that
//! runs no MIL.

use aneforge::Target;
use aneforge_ane::symbols::{CORE_FOUNDATION, E5RT, IO_SURFACE, OBJC};
use aneforge_ane::{MESSAGES, NEVER};
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What a call does other than its work.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    Fail(i32),
    Null,
    Hang(Duration),
    Crash,
}

#[derive(Debug)]
struct Settings {
    faults: Vec<(String, u64, Fault)>,
    slow: Vec<(String, Duration)>,
    corrupt: Option<u64>,
    print: Option<String>,
    reject: Option<String>,
    nothing: bool,
    chip: Target,
    programs: usize,
    reopen: bool,
    dense: bool,
    calls: HashMap<&'static str, u64>,
    /// Whether a call has to be looked up.
    quiet: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            faults: Vec::new(),
            slow: Vec::new(),
            corrupt: None,
            print: None,
            reject: None,
            nothing: false,
            chip: Target::default(),
            programs: 128,
            reopen: true,
            dense: false,
            calls: HashMap::new(),
            quiet: true,
        }
    }
}

static SETTINGS: LazyLock<Mutex<Settings>> = LazyLock::new(|| {
    let mut settings = Settings::default();
    if let Ok(text) = std::env::var("ANEFORGE_STANDIN")
        && let Err(why) = settings.apply(&text)
    {
        crate::broken(&format!("ANEFORGE_STANDIN: {why}"));
    }
    Mutex::new(settings)
});

fn settings() -> MutexGuard<'static, Settings> {
    SETTINGS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Applies settings to those that are there.
pub fn configure(text: &str) -> Result<(), String> {
    settings().apply(text)
}

/// An error for a function that the stand-in never has called.
fn known(symbol: &str) -> Result<(), String> {
    let functions = [E5RT, OBJC, CORE_FOUNDATION, IO_SURFACE]
        .into_iter()
        .flatten()
        .map(|function| function.symbol)
        .chain(NEVER.iter().map(|(symbol, _)| *symbol));
    let mut all = functions.chain(MESSAGES.iter().map(|message| message.selector));
    match all.any(|known| known == symbol) {
        true => Ok(()),
        false => {
            Err(format!("`{symbol}` is no function that is called, and no message to the engine's classes"))
        }
    }
}

impl Settings {
    fn apply(&mut self, text: &str) -> Result<(), String> {
        text.split(';')
            .map(str::trim)
            .filter(|word| !word.is_empty())
            .try_for_each(|word| self.word(word))?;
        self.quiet = self.faults.is_empty() && self.slow.is_empty();
        Ok(())
    }

    fn word(&mut self, word: &str) -> Result<(), String> {
        let unknown = || format!("`{word}` is no setting");
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let number = |text: &str| text.parse::<u64>().map_err(|_| unknown());
        match key {
            "reset" => *self = Settings::default(),
            "dense" => self.dense = true,
            "execute" if value == "nothing" => self.nothing = true,
            "reopen" if value == "no" => self.reopen = false,
            "print" => self.print = Some(value.to_owned()),
            "reject" => self.reject = Some(value.to_owned()),
            "corrupt" => self.corrupt = Some(number(value)?),
            "chip" => {
                let chip = Target::named(value).map_err(|error| error.to_string())?;
                chip.runs_programs().map_err(|error| error.to_string())?;
                self.chip = chip;
            }
            "programs" => self.programs = number(value)? as usize,
            "slow" => {
                let (symbol, time) = value.rsplit_once(':').ok_or_else(unknown)?;
                known(symbol)?;
                self.slow.push((symbol.to_owned(), Duration::from_millis(number(time)?)));
            }
            "fail" | "null" | "hang" | "crash" => {
                let (symbol, at) = value.rsplit_once('@').ok_or_else(unknown)?;
                let (at, rest) = at.split_once(':').unwrap_or((at, ""));
                known(symbol)?;
                let fault = match key {
                    "fail" => Fault::Fail(rest.parse().map_err(|_| unknown())?),
                    "hang" => Fault::Hang(Duration::from_millis(number(rest)?)),
                    "null" => Fault::Null,
                    _ => Fault::Crash,
                };
                self.faults.push((symbol.to_owned(), number(at)?, fault));
            }
            _ => return Err(unknown()),
        }
        Ok(())
    }
}

/// What a call is to answer at once, if it is not to do its work.
pub(crate) enum Instead {
    /// This status.
    Code(i32),
    /// That it succeeded, and nothing else.
    Nothing,
}

/// Counts a call, and does to it what was set.
pub(crate) fn on(symbol: &'static str) -> Option<Instead> {
    let (mut wait, mut instead) = (Duration::ZERO, None);
    {
        let mut settings = settings();
        let count = settings.calls.entry(symbol).or_insert(0);
        *count += 1;
        let count = *count;
        if settings.quiet {
            return None;
        }
        wait +=
            settings.slow.iter().filter(|(name, _)| name == symbol).map(|(_, time)| *time).sum::<Duration>();
        for (_, _, fault) in settings.faults.iter().filter(|(name, at, _)| name == symbol && *at == count) {
            match fault {
                Fault::Fail(code) => instead = Some(Instead::Code(*code)),
                Fault::Null => instead = Some(Instead::Nothing),
                Fault::Hang(time) => wait += *time,
                Fault::Crash => crate::broken(&format!("{symbol} was set to crash")),
            }
        }
    }
    std::thread::sleep(wait);
    instead
}

pub(crate) fn calls(symbol: &str) -> u64 {
    settings().calls.get(symbol).copied().unwrap_or(0)
}

/// Whether this run, of so many, is to go wrong.
pub(crate) fn corrupt(run: u64) -> bool {
    settings().corrupt == Some(run)
}

pub(crate) fn executes() -> bool {
    !settings().nothing
}

pub(crate) fn chip() -> Target {
    settings().chip
}

pub(crate) fn programs() -> usize {
    settings().programs
}

pub(crate) fn reopens() -> bool {
    settings().reopen
}

pub(crate) fn is_dense() -> bool {
    settings().dense
}

/// Prints what compiles print.
pub(crate) fn print() {
    let text = settings().print.clone();
    if let Some(text) = text {
        eprintln!("{text}");
    }
}

/// Whether an op, or a kind of layer, is not to compile.
pub(crate) fn rejects(op: &str) -> bool {
    settings().reject.as_deref() == Some(op)
}

/// The processor's name, of the generation that the chip is of.
pub(crate) fn processor() -> String {
    let generation: u32 = chip()
        .name()
        .trim_start_matches(['h', 't', 'm'])
        .chars()
        .take_while(char::is_ascii_digit)
        .collect::<String>()
        .parse()
        .unwrap_or(13);
    format!("Apple M{}", generation.saturating_sub(12).max(1))
}
