//! Running a host plan: slots of memory, and one kernel call per step. Nothing is allocated after loading, but to look into
//! an overflow.

use crate::device::host::memory::{Constant, Kept, Ports, promised, room};
use crate::device::host::overflow::Overflows;
use crate::device::host::packs::Packs;
use crate::device::host::plan::{HostPlan, Place};
use crate::device::host::roof;
use crate::device::host::routine::{Call, Routine, Setup, prepare};
use crate::device::{Buffer, DeviceError, Loaded, Overflow, Port, Receipt, Roof, StepTime};
use crate::ir::graph::{Graph, NodeId};
use aneforge_kernels::callers::Callers;
use aneforge_kernels::threads::stopped;
use aneforge_kernels::{Kernels, Scratch, Watch};
use std::time::Instant;

/// A plan that is ready to run.
pub(super) struct Program {
    plan: HostPlan,
    /// One per step.
    routines: Vec<Box<dyn Routine>>,
    kept: Kept,
    scratch: Scratch,
    kernels: Kernels,
    watch: Watch,
    overflows: Overflows,
    /// Whether it runs so long that pools are told while it does.
    counted: bool,
    /// Bytes that were copied.
    copied: u64,
}

/// Operations from which on a program is counted: some tens of microseconds. Shorter ones do not ask for helpers often enough.
const LONG: f64 = 2.5e6;
/// Operations that take as long as moving a byte.
const PER_BYTE: f64 = 5.0;

impl Program {
    /// Loads a plan: packs its weights and takes all the memory it will need.
    pub(super) fn new(
        graph: &Graph,
        plan: HostPlan,
        kernels: Kernels,
        packs: &Packs,
    ) -> Result<Program, DeviceError> {
        let outputs = plan.outputs.iter().map(|(_, ty)| *ty);
        let ports = plan.feeds.iter().copied().chain(outputs.clone()).map(|ty| ty.bytes());
        let values = ports.chain(plan.slots.bytes.iter().copied()).fold(0usize, usize::saturating_add);
        promised(values)?;
        let routine = |step| Ok(prepare(&Setup { step, graph, packs })?.1);
        let routines: Vec<Box<dyn Routine>> = plan.steps.iter().map(routine).collect::<Result<_, _>>()?;
        let steps = || plan.steps.iter().zip(&routines);
        let working = steps().map(|(s, r)| r.scratch(s, &kernels)).max().unwrap_or(0);
        let need = values.saturating_add(working.saturating_mul(size_of::<f32>()));
        promised(need)?;
        let mut constants: Vec<Option<Constant>> = graph.constants().iter().map(|_| None).collect();
        let mut load = |place: Place| {
            if let Place::Constant(i) = place
                && constants[i as usize].is_none()
            {
                constants[i as usize] = Some(Constant::new(&graph.constants()[i as usize])?);
            }
            Ok(())
        };
        for (step, routine) in steps() {
            step.inputs[..routine.reads(step)].iter().try_for_each(|operand| load(operand.place))?;
            let residual = step.fused.residual.map(|operand| operand.place);
            step.fused.bias.into_iter().chain(residual).try_for_each(&mut load)?;
        }
        plan.outputs.iter().try_for_each(|(place, _)| load(*place))?;
        let slots = plan.slots.bytes.iter().map(|&bytes| room(bytes)).collect::<Result<_, _>>()?;
        let kept = Kept { constants, slots, ports: Ports::new(&plan.feeds, outputs) };
        let scratch = Scratch::try_with_capacity(working).ok_or(DeviceError::Memory { need })?;
        let (watch, overflows) = (Watch::default(), Overflows::new(graph));
        let work = plan.steps.iter().map(|step| step.flops + PER_BYTE * step.bytes as f64);
        let counted = work.sum::<f64>() >= LONG;
        Ok(Program { plan, routines, kept, scratch, kernels, watch, overflows, counted, copied: 0 })
    }

    /// Every node that made infinities or NaN of finite operands, in the order in which they were found.
    pub(super) fn made(&self) -> impl Iterator<Item = (NodeId, &Overflow)> {
        self.overflows.nodes()
    }

    /// Runs every step, and tells `after` of each.
    fn run(&mut self, mut after: impl FnMut()) -> Result<(), DeviceError> {
        let Program { plan, routines, kept, scratch, kernels, watch, overflows, counted, copied } = self;
        let mut memory = kept.open(plan.flush_nan.then_some(&*kernels))?;
        let _running = kernels.pool().callers().filter(|_| *counted).map(Callers::enter);
        for (step, routine) in plan.steps.iter().zip(routines) {
            let mut out = memory.take(step.output.place);
            let call = Call { step, memory: &memory, kernels, watch };
            call.run(&**routine, scratch, &mut out.bytes()[..step.output.room()]);
            memory.put(step.output.place, out);
            if stopped() {
                return Err(DeviceError::Stopped);
            }
            if watch.take() {
                let call = Call { step, memory: &memory, kernels, watch };
                overflows.look_into(&call, &**routine, scratch);
            }
            after();
        }
        *copied += memory.deliver(&plan.outputs) as u64;
        Ok(())
    }
}

impl Loaded for Program {
    fn bind(&mut self, port: Port, buffer: &Buffer) -> Result<(), DeviceError> {
        self.kept.ports.bind(port, buffer)
    }

    fn execute(&mut self) -> Result<(), DeviceError> {
        self.run(|| {})
    }

    fn profile(&mut self) -> Result<Vec<StepTime>, DeviceError> {
        let mut times = Vec::with_capacity(self.plan.steps.len());
        let mut start = Instant::now();
        self.run(|| {
            times.push(start.elapsed());
            start = Instant::now();
        })?;
        let steps = self.plan.steps.iter().zip(times);
        Ok(steps.map(|(step, time)| StepTime { time, ..step.timed() }).collect())
    }

    fn roof(&self) -> Option<Roof> {
        roof::measure(&self.kernels)
    }

    fn overflows(&self) -> &[Overflow] {
        self.overflows.found()
    }

    fn copied(&self) -> u64 {
        self.copied
    }

    fn describe(&self) -> String {
        self.plan.to_string()
    }

    fn receipt(&self) -> Receipt {
        let how = "this library's own kernels compute it".into();
        Receipt { device: "host".into(), how: vec![how] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::device::host::routine::tests::built;
    use crate::device::host::{Host, planner};
    use crate::ir::numerics::Numerics;
    use crate::ir::op::{OPS, Op};
    use crate::ir::ops::leaf::Constant as Leaf;
    use crate::ir::var::Var;
    use aneforge_kernels::threads::Pool;
    use aneforge_tensor::{DType, Shape, Tensor, f16};
    use std::sync::Arc;

    fn cases() -> impl Iterator<Item = Graph> {
        OPS.iter().flat_map(|entry| (entry.cases)()).filter_map(|case| built(&case))
    }

    fn load(graph: &Graph) -> Program {
        let plan = planner::plan(graph, Numerics::Ieee, true);
        Program::new(graph, plan, Kernels::with_threads(1), &Packs::default()).unwrap()
    }

    /// The results of `program`, whose feeds hold `value`.
    fn results(program: &mut Program, value: f16) -> Vec<Vec<f16>> {
        let host = Host::new(1);
        for (at, &ty) in program.plan.feeds.clone().iter().enumerate() {
            let buffer = host.allocate(ty).unwrap();
            if ty.dtype == DType::F16 {
                buffer.write(crate::Feed::F16(&vec![value; ty.shape.count()])).unwrap();
            }
            program.bind(Port::Input(at), &buffer).unwrap();
        }
        let outputs: Vec<Buffer> =
            program.plan.outputs.iter().map(|(_, ty)| host.allocate(*ty).unwrap()).collect();
        outputs.iter().enumerate().for_each(|(at, b)| program.bind(Port::Output(at), b).unwrap());
        program.execute().unwrap();
        outputs.iter().map(|buffer| buffer.values().unwrap().to_vec()).collect()
    }

    #[test]
    fn steps_take_no_more_working_memory_than_they_asked_for() {
        for graph in cases() {
            let mut program = load(&graph);
            let before = program.scratch.capacity();
            results(&mut program, f16::ONE);
            assert_eq!(program.scratch.capacity(), before, "{}", program.describe());
        }
    }

    #[test]
    fn long_programs_are_counted_while_they_run() {
        let callers = Callers::new(2);
        let kernels = Kernels::with_threads(1).on(Arc::new(Pool::new(2).sharing(Arc::clone(&callers))));
        let relu = |count: usize| {
            let graph = Graph::freeze(&[Var::input(Shape::new(&[count]).unwrap()).relu()]).unwrap();
            let plan = planner::plan(&graph, Numerics::Ieee, true);
            Program::new(&graph, plan, kernels.clone(), &Packs::default()).unwrap()
        };
        for (count, counted) in [(64, false), (1 << 20, true)] {
            let mut program = relu(count);
            results(&mut program, f16::ONE);
            let others = callers.enter();
            let mut helpers = 1;
            program.run(|| helpers = callers.helpers(1)).unwrap();
            assert_eq!(helpers == 0, counted, "{count} elements");
            drop(others);
            assert_eq!(callers.helpers(5), 5, "all have ended");
        }
    }

    /// Constants that are too large to be computed with are operands like others.
    #[test]
    fn any_operand_may_be_a_constant() {
        for graph in cases() {
            let mut constant = graph.clone();
            for node in constant.nodes.iter_mut().filter(|node| node.ty.dtype == DType::F16) {
                if let Op::Input(_) = node.op {
                    let values = vec![f16::ONE; node.ty.shape.count()];
                    constant.constants.push(Tensor::from_slice(node.ty.shape, &values).unwrap().into());
                    node.op = Leaf { index: constant.constants.len() as u64 - 1 }.into();
                }
            }
            let bits = |graph: &Graph| results(&mut load(graph), f16::ONE);
            assert_eq!(bits(&constant), bits(&graph), "{}", crate::ir::text::print(&graph));
        }
    }
}
