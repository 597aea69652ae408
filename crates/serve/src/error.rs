//! What goes wrong: with a request, in the form of OpenAI's errors, and before there are any.

use aneforge::{DeviceError, Kind};
use aneforge_models::vision::VisionError;
use aneforge_models::{EncodeError, LoadError};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::io;

/// A server could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// A model of texts could not be loaded.
    #[error("model `{name}`: {why}")]
    Texts {
        /// The model's name.
        name: String,
        /// Why not.
        why: Box<LoadError>,
    },
    /// A network for pictures could not be loaded.
    #[error("model `{name}`: {why}")]
    Pictures {
        /// The model's name.
        name: String,
        /// Why not.
        why: Box<VisionError>,
    },
    /// The model does what no endpoint is for.
    #[error("model `{name}`: {why}")]
    Unserved {
        /// The model's name.
        name: String,
        /// What it is, and what to do.
        why: String,
    },
    /// A setting is wrong, or two do not go together.
    #[error("{0}")]
    Settings(String),
    /// A file could not be read.
    #[error("cannot read {path}: {why}")]
    File {
        /// The file.
        path: String,
        /// What the system says.
        why: io::Error,
    },
    /// Nobody can be listened to at the address.
    #[error("cannot listen on {address}: {why}; choose another with --host and --port")]
    Listen {
        /// The address.
        address: String,
        /// What the system says.
        why: io::Error,
    },
    /// There is no device to run on.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The system gives no threads or no timers.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

impl ServeError {
    /// Whose fault it is.
    pub fn kind(&self) -> Kind {
        match self {
            ServeError::Texts { why, .. } => why.kind(),
            ServeError::Pictures { why, .. } => why.kind(),
            ServeError::Device(error) => error.kind(),
            ServeError::File { .. } => Kind::File,
            ServeError::Unserved { .. } | ServeError::Settings(_) | ServeError::Listen { .. } => Kind::Caller,
            ServeError::System(_) => Kind::Device,
        }
    }
}

/// A request that is not answered as it asks, as clients get it.
#[derive(Debug)]
pub(crate) struct Fault {
    pub status: StatusCode,
    message: String,
    kind: &'static str,
    code: Option<&'static str>,
    param: Option<&'static str>,
    /// Seconds after which to try again.
    retry: Option<u64>,
}

impl Fault {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Fault {
        Fault { status, message: message.into(), kind, code: None, param: None, retry: None }
    }

    /// What is asked for is wrong.
    pub fn invalid(message: impl Into<String>) -> Fault {
        Fault::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// A status of its own for what is asked for.
    pub fn refused(status: StatusCode, message: impl Into<String>) -> Fault {
        Fault::new(status, "invalid_request_error", message)
    }

    /// The key is absent or none of those that are known.
    pub fn unauthorized(message: &str) -> Fault {
        Fault::new(StatusCode::UNAUTHORIZED, "invalid_request_error", message).code("invalid_api_key")
    }

    /// There is more to do than can wait.
    pub fn busy(message: impl Into<String>, seconds: u64) -> Fault {
        let fault = Fault::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message);
        fault.code("queue_full").retry(seconds)
    }

    /// Nothing more is taken for now.
    pub fn unavailable(message: &str, seconds: u64) -> Fault {
        Fault::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message)
            .code("unavailable")
            .retry(seconds)
    }

    /// The answer took too long.
    pub fn late(seconds: u64) -> Fault {
        let message = format!("there was no answer within {seconds} seconds; send fewer or shorter inputs");
        Fault::new(StatusCode::GATEWAY_TIMEOUT, "server_error", message).code("timeout")
    }

    /// It is this server's fault, or the model's.
    pub fn internal(message: impl Into<String>) -> Fault {
        Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message).code("model_failed")
    }

    pub fn code(self, code: &'static str) -> Fault {
        Fault { code: Some(code), ..self }
    }

    pub fn param(self, param: &'static str) -> Fault {
        Fault { param: Some(param), ..self }
    }

    fn retry(self, seconds: u64) -> Fault {
        Fault { retry: Some(seconds), ..self }
    }
}

impl From<EncodeError> for Fault {
    fn from(error: EncodeError) -> Fault {
        Fault::internal(error.to_string())
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let Fault { status, message, kind, code, param, retry } = self;
        let error = json!({ "message": message, "type": kind, "param": param, "code": code });
        let body = json!({ "error": error }).to_string();
        let mut response = (status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = retry {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        response
    }
}
