//! The command line's shape: global options and the list of commands.

#[cfg(feature = "serve")]
use crate::commands::serve;
use crate::commands::{
    cache, check, classify, compile, completions, demo, devices, diagnose, diff_numerics, doctor, draw,
    embed, explain, fetch, index, inspect, ops, rerank, run, search, targets, train, worker,
};
use aneforge::Target;
use aneforge::device::host::{Isa, instruction_sets};
use aneforge::passes::{Compression, Form};
use aneforge::target::{System, UnknownNumerics, UnknownTarget, numerics_named};
use clap::builder::{EnumValueParser, PossibleValue, Resettable, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// What follows the options in `aneforge --help`.
const EXIT_CODES: &str = "\
With --json, an error is one line of JSON on standard error: error, with kind, code and message.

Exit codes:
  0  done
  1  a bug in aneforge; please report it
  2  the command line itself is wrong
  3  a file, a graph or an argument is wrong
  4  the target cannot run this graph; another target or another graph can
  5  the device is not there, or failed";

/// Program Apple's Neural Engine, or run the same programs on this machine's processor
#[derive(Parser)]
#[command(name = "aneforge", version, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes.
#[derive(clap::Args)]
pub struct Global {
    /// Print one JSON object for machines; `aneforge help COMMAND` lists its keys
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,

    /// Say more on standard error; twice for everything
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Global options")]
    pub verbose: u8,

    /// Say nothing but results and errors
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Global options")]
    pub quiet: bool,

    /// Threads of the host engine [default: as many as the machine runs at once]
    #[arg(
        long,
        global = true,
        value_name = "N",
        env = "ANEFORGE_THREADS",
        hide_env_values = true,
        value_parser = clap::value_parser!(u16).range(1..=1024),
        help_heading = "Global options"
    )]
    pub threads: Option<u16>,

    /// Where to run [default: `ane` on Apple silicon, `host` elsewhere]
    #[arg(
        long,
        global = true,
        value_parser = Trimmed(EnumValueParser::<DeviceName>::new()),
        ignore_case = true,
        env = "ANEFORGE_DEVICE",
        hide_env_values = true,
        help_heading = "Global options"
    )]
    pub device: Option<DeviceName>,

    /// Chip to compile for, such as `M1`, `h13` (the same) or `h17s` (M5 Pro) [default: `h17s`]
    #[arg(
        long,
        global = true,
        value_name = "CHIP",
        env = "ANEFORGE_TARGET",
        hide_env_values = true,
        value_parser = target,
        help_heading = "Global options"
    )]
    pub target: Option<Target>,

    /// Keep native layers that can also be written in MIL, each as a program of its own
    #[arg(long, global = true, help_heading = "Global options")]
    pub native: bool,

    /// How norms are written
    #[arg(
        long,
        global = true,
        value_parser = Trimmed(EnumValueParser::<NormsName>::new()),
        ignore_case = true,
        default_value = "auto",
        help_heading = "Global options"
    )]
    pub norms: NormsName,

    /// Form in which weights are stored: `int8`, `int4`, `sparse`, `blockwise`, or `auto`, what the target reads as it is
    /// [default: half precision]
    #[arg(
        long,
        global = true,
        value_parser = compression,
        value_name = "FORM",
        help_heading = "Global options"
    )]
    pub compress: Option<Form>,

    /// Largest relative error of 4-bit and blockwise weights; what exceeds it is stored in another form
    #[arg(
        long,
        global = true,
        value_name = "ERROR",
        requires = "compress",
        default_value_t = Compression::TOLERANCE,
        value_parser = tolerance,
        help_heading = "Global options"
    )]
    pub compress_atol: f64,

    /// Columns that share a scale in blockwise weights
    #[arg(
        long,
        global = true,
        value_name = "COLUMNS",
        requires = "compress",
        default_value_t = Compression::BLOCK,
        value_parser = block,
        help_heading = "Global options"
    )]
    pub block_size: usize,

    /// Make one of a chain of scalar factors, or of terms: results are rounded once, and not to the same bits
    #[arg(long, global = true, help_heading = "Global options")]
    pub fold_scalars: bool,

    /// System whose compiler the program is for: `macos26` (2 GiB of weights in one program) or `macos27` (1 GiB, with no
    /// public measurement); what has more is cut into several programs
    #[arg(long, global = true, value_parser = system, default_value = "macos26", help_heading = "Global options")]
    pub system: System,

    /// Most bytes of weights in one program, instead of the system's
    #[arg(long, global = true, value_name = "BYTES", help_heading = "Global options")]
    pub most_bytes: Option<u64>,

    /// Arithmetic of the host engine: what costs nothing of the target's published departures from IEEE 754 (`ane`), all of them
    /// (`faithful`, several times slower), either of another family or chip (such as `a14`, `M2` or `faithful-a13`), or none (`ieee`)
    #[arg(
        long,
        global = true,
        value_parser = numerics,
        env = "ANEFORGE_NUMERICS",
        hide_env_values = true,
        default_value = "ane",
        help_heading = "Global options"
    )]
    pub numerics: String,

    /// In which order products and convolutions sum on the host
    #[arg(
        long,
        global = true,
        value_parser = Trimmed(EnumValueParser::<SumsName>::new()),
        ignore_case = true,
        env = "ANEFORGE_SUMS",
        hide_env_values = true,
        default_value = "fast",
        help_heading = "Global options"
    )]
    pub sums: SumsName,

    /// Instruction set of the host's kernels, one of those that `aneforge devices` lists [default: the fastest]
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "ANEFORGE_ISA",
        hide_env_values = true,
        value_parser = isa,
        help_heading = "Global options"
    )]
    pub isa: Option<Isa>,

    /// Library through which the engine is reached, in the place of the system's own, such as the stand-in; programs then run on
    /// `ane` unless --device says otherwise. A relative path is one from this folder; an empty one is none
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "ANEFORGE_ENGINE_LIBRARY",
        hide_env_values = true,
        value_parser = clap::builder::OsStringValueParser::new().map(PathBuf::from),
        help_heading = "Global options"
    )]
    pub engine_library: Option<PathBuf>,

    /// Where programs run on the engine: in this process, with compiles tried and native layers run in another, or all in
    /// another
    #[arg(
        long,
        global = true,
        value_parser = Trimmed(EnumValueParser::<IsolationName>::new()),
        ignore_case = true,
        env = "ANEFORGE_ISOLATION",
        hide_env_values = true,
        default_value = "process",
        help_heading = "Global options"
    )]
    pub isolation: IsolationName,

    /// The option of the command line itself that asks for the host, or for a library, if one does.
    #[arg(skip)]
    pub elsewhere: Option<&'static str>,
}

impl Cli {
    /// Reads a command line.
    pub fn read(words: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
        let words: Vec<OsString> = words.into_iter().collect();
        let mut command = without_empty(Cli::command());
        let matches = command.try_get_matches_from_mut(&words).map_err(|error| blamed(error, &words))?;
        let mut cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
        cli.global.reach(&matches).map_err(|text| command.error(ErrorKind::ArgumentConflict, text))?;
        Ok(cli)
    }
}

impl Global {
    /// A library that is named for the engine is what programs run on, unless a device is asked for, too: on the command line, or where
    /// both are of the environment.
    fn reach(&mut self, matches: &clap::ArgMatches) -> Result<(), &'static str> {
        self.engine_library = self.engine_library.take().filter(|path| !path.as_os_str().is_empty());
        let said = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
        let asked = [
            ("--device host", self.device == Some(DeviceName::Host) && said("device")),
            ("--engine-library", self.engine_library.is_some() && said("engine_library")),
        ];
        self.elsewhere = asked.into_iter().find(|(_, asked)| *asked).map(|(option, _)| option);
        match (&self.engine_library, self.device) {
            (Some(_), Some(DeviceName::Host)) if said("engine_library") && said("device") => Err(
                "--device host runs nothing on the engine, and --engine-library names a library for it; leave one out",
            ),
            (Some(_), None) => {
                self.device = Some(DeviceName::Ane);
                Ok(())
            }
            (Some(_), Some(DeviceName::Host)) if said("engine_library") => {
                self.device = Some(DeviceName::Ane);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// The command without environment variables that are set to nothing, which count as unset.
fn without_empty(command: clap::Command) -> clap::Command {
    let empty = |name: &std::ffi::OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    let unset = |arg: clap::Arg| match arg.get_env().is_some_and(empty) {
        true => arg.env(Resettable::Reset),
        false => arg,
    };
    command.mut_args(unset).mut_subcommands(without_empty)
}

/// The error, which names the environment variable where the value that it is about came from one.
fn blamed(mut error: clap::Error, words: &[OsString]) -> clap::Error {
    let about = |error: &clap::Error| error.get(ContextKind::InvalidArg).map(ToString::to_string);
    let Some(option) = about(&error) else { return error };
    let mut variable = None;
    let command = without_variable(without_empty(Cli::command()), &option, &mut variable);
    let again = command.try_get_matches_from(words).err();
    match variable {
        // What is wrong on the line itself is wrong without the variable too.
        Some(name) if again.as_ref().and_then(about).as_ref() != Some(&option) => {
            error.insert(ContextKind::InvalidArg, ContextValue::String(name));
            error
        }
        _ => error,
    }
}

/// The command whose option, such as `--target <CHIP>`, reads no environment variable; and the variable's name.
fn without_variable(command: clap::Command, option: &str, variable: &mut Option<String>) -> clap::Command {
    let command = command.mut_args(|arg| {
        let this = arg.get_long().is_some_and(|long| {
            option.strip_prefix("--").is_some_and(|named| named.split([' ', '[', '=']).next() == Some(long))
        });
        match arg.get_env().filter(|_| this) {
            Some(name) => {
                *variable = Some(name.to_string_lossy().into_owned());
                arg.env(Resettable::Reset)
            }
            None => arg,
        }
    });
    command.mut_subcommands(|command| without_variable(command, option, variable))
}

/// Where programs run on the engine, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum IsolationName {
    /// In this process
    Process,
    /// In another, so that nothing that the engine does ends or hangs this one
    Worker,
}

/// Ways to write norms, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NormsName {
    /// Plainly, but where bounds that inputs declare or constants say that it would go wrong
    Auto,
    /// As mean, square and root in half precision
    Plain,
    /// So that every finite row comes out right, at about twice the number of ops
    Robust,
}

/// Orders of sums, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SumsName {
    /// In the fastest order that this processor has with exact products; last bits may differ between processors
    Fast,
    /// In one order, to the same bits on every machine
    Defined,
}

/// A word without the blanks around it, as those of `--target` and of Python's options are read.
#[derive(Clone)]
struct Trimmed<P>(P);

impl<P: TypedValueParser> TypedValueParser for Trimmed<P> {
    type Value = P::Value;

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&Arg>,
        word: &OsStr,
    ) -> Result<P::Value, clap::Error> {
        let trimmed = word.to_str().map_or(word, |word| OsStr::new(word.trim()));
        self.0.parse_ref(command, arg, trimmed)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        self.0.possible_values()
    }
}

fn compression(name: &str) -> Result<Form, String> {
    let names = Form::NAMED.map(|(name, _)| name).join(", ");
    Form::named(name).ok_or_else(|| format!("no form of weights has this name; choose from {names}"))
}

fn tolerance(text: &str) -> Result<f64, String> {
    let value = text.trim().parse::<f64>().ok().filter(|value| *value >= 0.0);
    value.ok_or_else(|| "a number from 0 on is needed, such as 0.05".into())
}

fn system(text: &str) -> Result<System, String> {
    System::named(text).ok_or_else(|| {
        let names = System::ALL.map(System::name).join("`, `");
        format!("known are `{names}`")
    })
}

fn block(text: &str) -> Result<usize, String> {
    let value = text.trim().parse::<usize>().ok().filter(|&value| value > 0);
    value.ok_or_else(|| "a number of columns from 1 on is needed, such as 32".into())
}

fn isa(name: &str) -> Result<Isa, String> {
    Isa::named(name).ok_or_else(|| {
        format!("no instruction set has this name; this processor has {}", instruction_sets().join(", "))
    })
}

fn target(name: &str) -> Result<Target, UnknownTarget> {
    Target::named(name)
}

fn numerics(name: &str) -> Result<String, UnknownNumerics> {
    numerics_named(name, Target::default()).map(|_| name.to_owned())
}

/// A device by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DeviceName {
    /// This machine's processor, with the engine's numerics
    Host,
    /// The Neural Engine
    Ane,
}

/// Every command; what it does is said at its arguments.
#[derive(Subcommand)]
pub enum Command {
    #[command(after_help = demo::JSON)]
    Demo(demo::Args),
    #[command(after_help = train::JSON)]
    Train(train::Args),
    #[command(after_help = fetch::JSON)]
    Fetch(fetch::Args),
    #[command(after_help = embed::JSON)]
    Embed(embed::Args),
    #[command(after_help = rerank::JSON)]
    Rerank(rerank::Args),
    #[command(after_help = classify::JSON)]
    Classify(classify::Args),
    #[command(after_help = index::JSON)]
    Index(index::Args),
    #[command(after_help = search::JSON)]
    Search(search::Args),
    #[command(after_help = draw::JSON)]
    Draw(draw::Args),
    #[cfg(feature = "serve")]
    #[command(after_help = serve::JSON)]
    Serve(serve::Args),
    #[command(after_help = compile::JSON)]
    Compile(compile::Args),
    #[command(after_help = run::JSON)]
    Run(run::Args),
    #[command(after_help = explain::JSON)]
    Explain(explain::Args),
    #[command(after_help = inspect::JSON)]
    Inspect(inspect::Args),
    #[command(after_help = check::JSON)]
    Check(check::Args),
    #[command(after_help = diagnose::JSON)]
    Diagnose(diagnose::Args),
    #[command(after_help = diff_numerics::JSON)]
    DiffNumerics(diff_numerics::Args),
    #[command(after_help = doctor::JSON)]
    Doctor(doctor::Args),
    #[command(after_help = cache::JSON)]
    Cache(cache::Args),
    #[command(after_help = ops::JSON)]
    Ops(ops::Args),
    #[command(after_help = targets::JSON)]
    Targets(targets::Args),
    #[command(after_help = devices::JSON)]
    Devices(devices::Args),
    Completions(completions::Args),
    #[command(hide = true)]
    Worker(worker::Args),
}
