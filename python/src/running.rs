//! Plans on devices, with the memory of their state.

use crate::error::Error;
use crate::home::Home;
use crate::state;
use aneforge::{Buffer, CompileOptions, Device, Graph, HostOptions, Plan, Session};
use std::sync::{Arc, Mutex, PoisonError};

/// How a plan runs.
#[derive(Clone)]
pub struct Running {
    pub plan: Arc<Plan>,
    pub device: Arc<dyn Device>,
    /// What was asked for of the host.
    pub host: HostOptions,
    /// The memory of its state, by the number of its leaf; at first, only of what `af.state` made.
    pub states: Vec<(u64, Buffer)>,
    /// The graph that the plan was compiled from, where it was in this process.
    pub written: Option<Arc<(Graph, CompileOptions)>>,
}

impl Running {
    /// Loads the plan into the device. A session that takes the place of another keeps its state.
    pub fn load(mut self) -> Result<(Running, Home<Session>), Error> {
        let Running { plan, device, states, .. } = self.clone();
        let mut first = Session::new(plan.clone(), &device).map_err(Error::Run)?;
        let states = state::bind(&mut first, &states)?;
        self.states = states.clone();
        let first = Mutex::new(Some(first));
        let home = Home::new(move || {
            if let Some(first) = first.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return Ok(first);
            }
            let mut session = Session::new(plan.clone(), &device).map_err(Error::Run)?;
            state::bind(&mut session, &states)?;
            Ok(session)
        })?;
        Ok((self, home))
    }
}
