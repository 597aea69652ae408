//! Parts of Espresso that systems need not have: events, and what it says of ports.

use super::Handle;
use super::e5rt::{E5rt, Event, Operation, Port, Tensor};
use crate::error::Failure;
use std::ffi::CStr;

impl E5rt {
    /// An event of this name; `None` where the library has none.
    pub(crate) fn event(&'static self, name: &CStr) -> Option<Result<Event, Failure>> {
        let (create, _) = (self.call.event_create?, self.call.event_release?);
        let mut out: Handle = std::ptr::null_mut();
        // SAFETY: see `compile`. The last argument is a word of flags, of which only 0 is known to be taken.
        let code = unsafe { create(&raw mut out, name.as_ptr(), 0) };
        Some(self.made("e5rt_async_event_create", code, out).map(|raw| Event::new(self, raw)))
    }

    pub(crate) fn completes(&self, operation: &Operation, event: &Event) -> Option<Result<(), Failure>> {
        let bind = self.call.operation_completion?;
        // SAFETY: see `compile`.
        let code = unsafe { bind(operation.raw(), event.raw) };
        Some(self.check("e5rt_execution_stream_operation_bind_completion_event", code))
    }

    pub(crate) fn depends(&self, operation: &Operation, event: &Event) -> Option<Result<(), Failure>> {
        let bind = self.call.operation_dependent?;
        let mut events = [event.raw];
        // SAFETY: see `compile`.
        let code = unsafe { bind(operation.raw(), events.as_mut_ptr(), 1) };
        Some(self.check("e5rt_execution_stream_operation_bind_dependent_events", code))
    }

    pub(crate) fn signal(&self, event: &Event, value: u64) -> Option<Result<(), Failure>> {
        let signal = self.call.event_signal?;
        // SAFETY: see `compile`.
        Some(self.check("e5rt_async_event_signal", unsafe { signal(event.raw, value) }))
    }

    pub(crate) fn wait(&self, event: &Event, value: u64, nanoseconds: u64) -> Option<Result<(), Failure>> {
        let wait = self.call.event_wait?;
        // SAFETY: see `compile`.
        Some(self.check("e5rt_async_event_sync_wait", unsafe { wait(event.raw, value, nanoseconds) }))
    }

    pub(crate) fn value(&self, event: &Event) -> Option<Result<u64, Failure>> {
        let (get, mut value) = (self.call.event_value?, 0);
        // SAFETY: see `compile`.
        let code = unsafe { get(event.raw, &raw mut value) };
        Some(self.check("e5rt_async_event_get_last_signaled_value", code).map(|()| value))
    }

    /// The extents of a port, and how many elements apart they lie, where the library says so.
    pub(crate) fn layout(&'static self, port: &Port) -> Option<Vec<(u64, u64)>> {
        let call = &self.call;
        let (tensor, rank) = (call.port_tensor?, call.tensor_rank?);
        let (length, stride) = (call.tensor_length?, call.tensor_stride?);
        let mut out: Handle = std::ptr::null_mut();
        // SAFETY: see `compile`.
        let code = unsafe { tensor(port.raw, &raw mut out) };
        let tensor = Tensor::new(self, self.made("e5rt_io_port_retain_tensor_desc", code, out).ok()?);
        let mut axes = 0;
        // SAFETY: see `compile`.
        let code = unsafe { rank(tensor.raw, &raw mut axes) };
        (code == 0 && axes <= 8).then_some(())?;
        (0..axes)
            .map(|axis| {
                let mut found = (0, 0);
                // SAFETY: see `compile`.
                let codes = unsafe {
                    [length(tensor.raw, axis, &raw mut found.0), stride(tensor.raw, axis, &raw mut found.1)]
                };
                (codes == [0, 0]).then_some(found)
            })
            .collect()
    }
}
