//! Runs that go on while their caller does something else, by the library's own means.

use super::Program;
use crate::error::AneError;
use crate::sys::buffer::Buffer;
use crate::sys::system::Block;
use std::time::Duration;

impl Program {
    /// Starts every program of the stream through the library's asynchronous interface, which takes one at a time in a process. That
    /// it ended is known, and not how: no public caller has found where a failure would show.
    ///
    /// Every buffer that a port is bound to is among `buffers`, which are taken once it runs, and come back from
    /// [`Submission::wait`].
    pub fn submit(&mut self, buffers: &mut Vec<Buffer>) -> Result<Submission<'_>, AneError> {
        self.ready()?;
        self.take(&mut *buffers)?;
        let without = "programs are not started asynchronously";
        let lacks =
            |symbol| AneError::Symbol { path: self.framework.libraries().espresso.clone(), symbol, without };
        // Without a reset a stream would run asynchronously only once.
        let needs = ["e5rt_execution_stream_submit_async", "e5rt_execution_stream_reset"];
        if let Some(missing) = needs.into_iter().find(|symbol| self.framework.e5rt.lacks(symbol)) {
            return Err(lacks(missing));
        }
        let class = self.framework.block_class.ok_or_else(|| lacks("_NSConcreteGlobalBlock"))?;
        if self.parts().block.is_none() {
            let block = Block::new(class, &self.completion);
            self.parts_mut().block = Some(block);
        }
        if !self.framework.e5rt.turn.take() {
            return Err(AneError::InFlight);
        }
        if let Err(error) = self.start() {
            self.framework.e5rt.turn.give();
            return Err(error);
        }
        self.flying = true;
        Ok(Submission { program: Some(self), buffers: std::mem::take(buffers) })
    }

    fn start(&mut self) -> Result<(), AneError> {
        self.encode()?;
        let block = self.parts().block.as_ref().expect("invariant: looked at before");
        block.rearm();
        let api = self.framework.e5rt;
        Ok(api.submit(&self.parts().stream, block).expect("invariant: looked at before")?)
    }

    pub(super) fn finish(&mut self, limit: Duration) -> Result<(), AneError> {
        self.flying = false;
        if !self.completion.wait(limit) {
            self.flight.give_up();
            self.abandoned = true;
            return Err(AneError::Hung(limit));
        }
        self.framework.e5rt.turn.give();
        self.spent = true;
        Ok(())
    }
}

/// A program that runs. Dropping this waits for it.
#[derive(Debug)]
pub struct Submission<'a> {
    program: Option<&'a mut Program>,
    buffers: Vec<Buffer>,
}

impl Submission<'_> {
    /// Waits until the program is done, at most so long, and gives its buffers back: unless it hangs, as they are then the engine's.
    pub fn wait(mut self, limit: Duration) -> Result<Vec<Buffer>, AneError> {
        self.program.take().map_or(Ok(()), |program| program.finish(limit))?;
        Ok(std::mem::take(&mut self.buffers))
    }
}

impl Drop for Submission<'_> {
    fn drop(&mut self) {
        if let Some(program) = self.program.take()
            && let Err(error) = program.finish(program.flight.limit())
        {
            tracing::error!("a program that was started asynchronously: {error}");
        }
    }
}
