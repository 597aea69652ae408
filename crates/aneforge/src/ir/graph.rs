//! Frozen graphs: an arena of nodes in topological order, with a table of constants.

use crate::ir::form::{Facts, Form};
use crate::ir::op::Op;
use crate::ir::ops::leaf::{Constant, Input, Role};
use crate::ir::precision::{Array, Precision};
use crate::ir::types::{Caller, TensorType};
use crate::ir::var::{BuildError, Var};
use aneforge_tensor::weight::Identity;
use aneforge_tensor::{Encoding, Weight};
use std::collections::{HashMap, HashSet};

/// A node's position in its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

impl NodeId {
    /// As an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One node of a graph.
#[derive(Clone, Debug, PartialEq)]
pub struct GraphNode {
    /// What it computes.
    pub op: Op,
    /// From which nodes, all before it.
    pub inputs: Vec<NodeId>,
    /// The type of its result.
    pub ty: TensorType,
    /// The line that built it.
    pub at: Caller,
}

/// A frozen graph. Passes build new ones; nothing changes one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    pub(crate) nodes: Vec<GraphNode>,
    /// What is returned, then what becomes of state.
    pub(crate) outputs: Vec<NodeId>,
    pub(crate) constants: Vec<Weight>,
    /// Leaves of state, one for each of the last outputs.
    pub(crate) carries: Vec<NodeId>,
}

impl Graph {
    /// Freezes everything that `outputs` need, in depth-first order with inputs from first to last.
    /// Constants that share their bytes become one node each but share one table entry.
    pub fn freeze(outputs: &[Var]) -> Result<Graph, BuildError> {
        Graph::carrying(outputs, &[])
    }

    /// The same for a step: a run also makes each second value of `carries` what the first one, a leaf of state or a parameter, is
    /// in the next run. All leaves are read before any of them changes.
    ///
    /// ```
    /// use aneforge::ir::ops::leaf::Role;
    /// use aneforge::{CompileOptions, Graph, Session, Shape, Tensor, TensorType, Var, compile_graph, device};
    /// let scalar = TensorType::f16(Shape::new(&[1])?);
    /// let (x, total) = (Var::leaf(scalar, Role::Feed), Var::leaf(scalar, Role::State));
    /// let next = &total + &x;
    /// let plan = compile_graph(&Graph::carrying(&[next.muls(10.0)], &[(&total, &next)])?, &CompileOptions::default())?;
    /// let mut sum = Session::new(plan, device::named("host")?)?;
    /// let mut last = Vec::new();
    /// for x in [1.0f32, 2.0, 3.0] {
    ///     last = sum.run(&[Tensor::from_slice(Shape::new(&[1])?, &[x])?])?;
    /// }
    /// assert_eq!(last[0].to_f32(), [60.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn carrying(outputs: &[Var], carries: &[(&Var, &Var)]) -> Result<Graph, BuildError> {
        let mut builder = Builder::default();
        for output in outputs {
            output.check()?;
            builder.add(output);
        }
        for (state, next) in carries {
            state.check()?;
            next.check()?;
            builder.add(next);
            // Also one that nothing reads: it is written.
            builder.add(state);
        }
        let mut graph = builder.graph;
        let place = |v: &Var| builder.done[&v.id()];
        graph.outputs = outputs.iter().chain(carries.iter().map(|(_, next)| *next)).map(place).collect();
        graph.carries = carries.iter().map(|(state, _)| place(state)).collect();
        if let Some((at, why)) = graph.wrong_carry() {
            return Err(BuildError { op: "carry".into(), why, at: carries[at].1.caller() });
        }
        if let Some((second, name)) = graph.repeated_name() {
            let why = format!("two inputs are called `{name}`; give each a name of its own");
            return Err(BuildError { op: "input".into(), why, at: graph.node(second).at });
        }
        Ok(graph)
    }

    /// What it returns as values again, whose leaves are those of the graph.
    pub fn thaw(&self) -> Vec<Var> {
        let vars = self.to_vars(|_, _| None);
        self.outputs.iter().map(|o| vars[o.index()].clone()).collect()
    }

    /// All nodes, each after its inputs.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &GraphNode)> {
        self.nodes.iter().enumerate().map(|(i, n)| (NodeId(i as u32), n))
    }

    /// One node.
    pub fn node(&self, id: NodeId) -> &GraphNode {
        &self.nodes[id.index()]
    }

    /// The number of nodes, leaves included.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The nodes whose values a run computes for others: what is returned, and after that what becomes of state.
    pub fn outputs(&self) -> &[NodeId] {
        &self.outputs
    }

    /// The nodes whose values are returned.
    pub fn returned(&self) -> &[NodeId] {
        &self.outputs[..self.outputs.len() - self.carries.len()]
    }

    /// Leaves of state, each with what becomes of it.
    pub fn carries(&self) -> impl Iterator<Item = (NodeId, NodeId)> {
        let nexts = &self.outputs[self.outputs.len() - self.carries.len()..];
        self.carries.iter().copied().zip(nexts.iter().copied())
    }

    /// The table of constants.
    pub fn constants(&self) -> &[Weight] {
        &self.constants
    }

    /// The contents of a constant node.
    pub fn constant(&self, id: NodeId) -> Option<&Weight> {
        match self.node(id).op {
            Op::Constant(Constant { index }) => self.constants.get(index as usize),
            _ => None,
        }
    }

    /// The place in the table of a constant node.
    pub(crate) fn place_of_constant(&self, id: NodeId) -> Option<usize> {
        match self.node(id).op {
            Op::Constant(Constant { index }) => Some(index as usize),
            _ => None,
        }
    }

    /// The identity of a leaf that is fed.
    pub(crate) fn leaf_of(&self, id: NodeId) -> Option<u64> {
        match &self.node(id).op {
            Op::Input(leaf) => Some(leaf.id),
            _ => None,
        }
    }

    /// The leaves that are fed, in feed order.
    pub fn feeds(&self) -> Vec<NodeId> {
        let mut feeds: Vec<(u64, NodeId)> = self
            .nodes()
            .filter_map(|(id, n)| match &n.op {
                Op::Input(leaf) => Some((leaf.id, id)),
                _ => None,
            })
            .collect();
        feeds.sort();
        feeds.into_iter().map(|(_, id)| id).collect()
    }

    /// What a node does to its operands.
    pub fn form(&self, id: NodeId) -> Form {
        let node = self.node(id);
        node.op.form(&self.types(node), &node.ty)
    }

    /// What is known of a node's results.
    pub fn facts(&self, id: NodeId) -> Facts {
        let node = self.node(id);
        node.op.facts(&self.types(node), &node.ty)
    }

    fn types(&self, node: &GraphNode) -> Vec<TensorType> {
        node.inputs.iter().map(|&i| self.node(i).ty).collect()
    }

    /// How many nodes use each node's value; being returned counts as one use.
    pub fn uses(&self) -> Vec<u32> {
        let mut uses = vec![0; self.len()];
        for id in self.nodes.iter().flat_map(|n| &n.inputs).chain(&self.outputs) {
            uses[id.index()] += 1;
        }
        uses
    }

    /// Evaluates every node by its scalar definition.
    ///
    /// # Panics
    /// If `feeds` are not one array per feed, of its element count.
    pub fn eval(&self, feeds: &[Array], precision: Precision) -> Vec<Array> {
        let order = self.feeds();
        assert_eq!(order.len(), feeds.len(), "one array per feed");
        let mut values: Vec<Array> = Vec::with_capacity(self.len());
        for (id, node) in self.nodes() {
            let value = match &node.op {
                Op::Input(_) => {
                    let feed = order.iter().position(|&f| f == id).expect("invariant: leaves are feeds");
                    assert_eq!(feeds[feed].shape.count(), node.ty.shape.count(), "feed {feed}");
                    Array { shape: node.ty.shape, ..feeds[feed].clone() }
                }
                Op::Constant(_) => {
                    let weight = self.constant(id).expect("invariant: constants are in the table");
                    Array::from_weight(weight, precision)
                }
                op => {
                    let mut inputs: Vec<&Array> = node.inputs.iter().map(|i| &values[i.index()]).collect();
                    let by_bytes = node.inputs.get(1).and_then(|&weight| self.constant(weight));
                    let by_bytes = by_bytes.is_some_and(|weight| weight.encoding() == Encoding::Int8);
                    let saturated;
                    if by_bytes && matches!(self.form(id), Form::Product(_)) {
                        saturated = precision.met_by_bytes(inputs[0]);
                        inputs[0] = &saturated;
                    }
                    op.eval(&inputs, &node.ty, precision)
                }
            };
            values.push(value);
        }
        values
    }

    /// This graph as values again, one per node, for a rewrite to build on.
    pub(crate) fn to_vars(&self, mut rebuild: impl FnMut(NodeId, &[Var]) -> Option<Var>) -> Vec<Var> {
        let mut vars: Vec<Var> = Vec::with_capacity(self.len());
        for (id, node) in self.nodes() {
            let replaced = rebuild(id, &vars);
            let var = replaced.unwrap_or_else(|| match self.constant(id) {
                Some(weight) => Var::rebuilt_constant(weight.clone(), node.at),
                None => {
                    let inputs = node.inputs.iter().map(|i| vars[i.index()].clone()).collect();
                    Var::rebuilt(node.op.clone(), inputs, node.ty, node.at)
                }
            });
            vars.push(var);
        }
        vars
    }
}

#[derive(Default)]
struct Builder {
    graph: Graph,
    done: HashMap<u64, NodeId>,
    interned: HashMap<Identity, u64>,
}

impl Builder {
    /// Adds `root` and what it needs. The stack holds nodes whose inputs are being added, so graphs of
    /// any depth freeze.
    fn add(&mut self, root: &Var) {
        let mut stack: Vec<(Var, usize)> = vec![(root.clone(), 0)];
        while let Some((var, next)) = stack.pop() {
            if self.done.contains_key(&var.id()) {
                continue;
            }
            match var.inputs().get(next) {
                Some(input) => {
                    let input = input.clone();
                    stack.push((var, next + 1));
                    stack.push((input, 0));
                }
                None => self.push(&var),
            }
        }
    }

    fn push(&mut self, var: &Var) {
        let op = match var.data() {
            Some(weight) => Constant { index: self.intern(weight) }.into(),
            None => var.op().clone(),
        };
        let inputs = var.inputs().iter().map(|v| self.done[&v.id()]).collect();
        let ty = var.ty();
        self.graph.nodes.push(GraphNode { op, inputs, ty, at: var.caller() });
        self.done.insert(var.id(), NodeId(self.graph.nodes.len() as u32 - 1));
    }

    fn intern(&mut self, weight: &Weight) -> u64 {
        let table = &mut self.graph.constants;
        *self.interned.entry(weight.identity()).or_insert_with(|| {
            table.push(weight.clone());
            table.len() as u64 - 1
        })
    }
}

/// A feed as a graph describes it to its callers.
#[derive(Clone, Debug, PartialEq)]
pub struct InputInfo {
    /// The leaf's identity.
    pub leaf: u64,
    /// What may be fed.
    pub ty: TensorType,
    /// Who feeds it.
    pub role: Role,
    /// Its name; empty where it has none.
    pub name: String,
}

impl Graph {
    /// What is fed, in feed order.
    pub fn feed_types(&self) -> Vec<InputInfo> {
        let describe = |id: NodeId| {
            let node = self.node(id);
            match &node.op {
                Op::Input(Input { id, role, name, .. }) => {
                    InputInfo { leaf: *id, ty: node.ty, role: *role, name: name.clone() }
                }
                op => unreachable!("{} is not a feed", op.name()),
            }
        };
        self.feeds().into_iter().map(describe).collect()
    }

    /// The first carry that cannot be one, by its place, and why.
    pub(crate) fn wrong_carry(&self) -> Option<(usize, String)> {
        let mut seen = HashSet::new();
        self.carries().enumerate().find_map(|(at, (state, next))| {
            let (leaf, next) = (self.node(state), self.node(next));
            let why = match &leaf.op {
                Op::Input(Input { role, .. }) if !role.is_kept() => {
                    "only state and parameters are carried, and this input is fed; make it state".into()
                }
                Op::Input(_) if !seen.insert(state) => {
                    "a state is carried twice; it becomes one value".into()
                }
                Op::Input(_) if leaf.ty != next.ty => {
                    format!("a state of {} cannot become {}; give it its shape and type", leaf.ty, next.ty)
                }
                Op::Input(_) => return None,
                op => format!("only state and parameters are carried, got the result of {}", op.name()),
            };
            Some((at, why))
        })
    }

    /// The first input whose name another has before it.
    pub(crate) fn repeated_name(&self) -> Option<(NodeId, &str)> {
        let mut names = HashSet::new();
        self.nodes().find_map(|(id, node)| match &node.op {
            Op::Input(leaf) if !leaf.name.is_empty() && !names.insert(leaf.name.as_str()) => {
                Some((id, leaf.name.as_str()))
            }
            _ => None,
        })
    }
}
