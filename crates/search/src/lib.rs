//! Search by meaning: folders of texts or pictures become vectors in one mapped file, which is asked with words or with a picture.
//!
//! | module | holds |
//! |---|---|
//! | [`index`] | the file: opening, looking for what is nearest |
//! | [`build`](mod@build) | making it, and making it up to date |
//! | [`model`] | what makes vectors of texts and of pictures |
//! | [`passages`] | texts in parts |
//! | [`scan`] | which of many vectors are nearest to one |
//!
//! ```no_run
//! use aneforge_search::{Index, Kind, Model, ModelOptions, Wanted, build};
//!
//! let mut model = Model::open("sentence-transformers/all-MiniLM-L6-v2", Kind::Texts, ModelOptions::default())?;
//! let wanted = Wanted { roots: vec!["notes".into()], ..Wanted::default() };
//! build("notes.index".as_ref(), &mut model, &wanted, None, &mut |_| std::ops::ControlFlow::Continue(()))?;
//! let index = Index::open("notes.index".as_ref())?;
//! for hit in index.nearest(&model.text("how to renew a passport")?, 5)? {
//!     println!("{:.3} {}:{}", hit.score, hit.path.display(), hit.line);
//! }
//! # Ok::<(), aneforge_search::SearchError>(())
//! ```

pub mod build;
mod error;
pub mod index;
pub mod model;
pub mod passages;
pub mod scan;
mod walk;

pub use build::{Progress, Report, Wanted, build};
pub use error::SearchError;
pub use index::{Hit, Index};
pub use model::{Kind, Model, ModelOptions};
