//! The families of transformers that are known: what each calls its weights, and where its parts stand.

/// How a family builds an encoder. All of them are one graph; this is where they differ.
#[derive(Debug)]
pub(crate) struct Family {
    /// What `config.json` calls it, as `model_type`.
    pub(crate) types: &'static [&'static str],
    pub(crate) names: Names,
    /// Where the norms stand.
    pub(crate) order: Order,
    pub(crate) places: Places,
    /// Which layers add a bias, where `config.json` does not say.
    pub(crate) biases: Biases,
    /// What is added to the variance in norms, where `config.json` does not say.
    pub(crate) eps: f64,
    /// The function of the feed-forward layers, where `config.json` does not say.
    pub(crate) activation: &'static str,
    /// The token that fills up, where `config.json` does not say.
    pub(crate) pad: u32,
}

/// Where the norms of a layer stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// On the sum of a part's operand and its result.
    After,
    /// On what a part takes; the first layer's attention takes the embeddings as they are, and one norm follows the last layer.
    Before,
}

/// How a model knows where a token stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Places {
    /// A table of the first place to the last.
    Table,
    /// A table in which the first place follows that of the token that fills up.
    AfterPad,
    /// The same, and a table by which the distance of query and key is added to scores.
    AfterPadAndDistance,
    /// Queries and keys are turned by an angle that grows with the place.
    Turned {
        /// The base of the angles' periods, where `config.json` does not say.
        theta: f64,
        /// That of layers whose attention is local.
        local: f64,
    },
}

/// Which layers add a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Biases {
    pub(crate) attention: bool,
    pub(crate) up: bool,
    pub(crate) down: bool,
    pub(crate) norm: bool,
}

const ALL: Biases = Biases { attention: true, up: true, down: true, norm: true };

/// What a family calls its weights, without what precedes all names and without `.weight` and `.bias`.
#[derive(Debug)]
pub(crate) struct Names {
    pub(crate) words: &'static str,
    pub(crate) positions: Option<&'static str>,
    pub(crate) kinds: Option<&'static str>,
    pub(crate) distances: Option<&'static str>,
    pub(crate) norm: &'static str,
    /// What precedes the number of a layer.
    pub(crate) layers: &'static str,
    pub(crate) projections: Projections,
    pub(crate) attended: &'static str,
    pub(crate) attention_norm: &'static str,
    pub(crate) up: Up,
    pub(crate) down: &'static str,
    pub(crate) feed_norm: &'static str,
    /// The norm after the last layer.
    pub(crate) last: Option<&'static str>,
}

/// The projections to queries, keys and values.
#[derive(Debug)]
pub(crate) enum Projections {
    /// One weight each.
    Three([&'static str; 3]),
    /// The rows of one weight, in this order.
    One(&'static str),
}

/// The first half of a feed-forward layer.
#[derive(Debug)]
pub(crate) enum Up {
    /// One weight, whose result the function is applied to.
    Plain(&'static str),
    /// Two, of which the function is applied to the first one's result, which is multiplied with that of the second.
    Gated([&'static str; 2]),
    /// The same as rows of one weight, those that the function is applied to first or last.
    Joined { name: &'static str, first: bool },
}

impl Family {
    /// The family that `config.json` names so.
    pub(crate) fn of(model_type: &str) -> Option<&'static Family> {
        FAMILIES.iter().find(|family| family.types.contains(&model_type))
    }

    /// All names, for messages.
    pub(crate) fn known() -> String {
        FAMILIES.iter().flat_map(|family| family.types).copied().collect::<Vec<_>>().join(", ")
    }
}

const BERT: Family = Family {
    types: &["bert"],
    names: Names {
        words: "embeddings.word_embeddings",
        positions: Some("embeddings.position_embeddings"),
        kinds: Some("embeddings.token_type_embeddings"),
        distances: None,
        norm: "embeddings.LayerNorm",
        layers: "encoder.layer.",
        projections: Projections::Three([
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
        ]),
        attended: "attention.output.dense",
        attention_norm: "attention.output.LayerNorm",
        up: Up::Plain("intermediate.dense"),
        down: "output.dense",
        feed_norm: "output.LayerNorm",
        last: None,
    },
    order: Order::After,
    places: Places::Table,
    biases: ALL,
    eps: 1e-12,
    activation: "gelu",
    pad: 0,
};

const FAMILIES: &[Family] = &[
    BERT,
    // RoBERTa has BERT's names; its pad is the token 1, and places count from the one after it.
    Family { types: &["roberta", "xlm-roberta", "camembert"], places: Places::AfterPad, pad: 1, ..BERT },
    Family {
        types: &["distilbert"],
        names: Names {
            kinds: None,
            layers: "transformer.layer.",
            projections: Projections::Three(["attention.q_lin", "attention.k_lin", "attention.v_lin"]),
            attended: "attention.out_lin",
            attention_norm: "sa_layer_norm",
            up: Up::Plain("ffn.lin1"),
            down: "ffn.lin2",
            feed_norm: "output_layer_norm",
            ..BERT.names
        },
        ..BERT
    },
    Family {
        types: &["mpnet"],
        names: Names {
            kinds: None,
            distances: Some("encoder.relative_attention_bias"),
            projections: Projections::Three(["attention.attn.q", "attention.attn.k", "attention.attn.v"]),
            attended: "attention.attn.o",
            attention_norm: "attention.LayerNorm",
            ..BERT.names
        },
        places: Places::AfterPadAndDistance,
        pad: 1,
        ..BERT
    },
    Family {
        types: &["modernbert"],
        names: Names {
            words: "embeddings.tok_embeddings",
            positions: None,
            kinds: None,
            distances: None,
            norm: "embeddings.norm",
            layers: "layers.",
            projections: Projections::One("attn.Wqkv"),
            attended: "attn.Wo",
            attention_norm: "attn_norm",
            up: Up::Joined { name: "mlp.Wi", first: true },
            down: "mlp.Wo",
            feed_norm: "mlp_norm",
            last: Some("final_norm"),
        },
        order: Order::Before,
        places: Places::Turned { theta: 160_000.0, local: 10_000.0 },
        biases: Biases { attention: false, up: false, down: false, norm: false },
        eps: 1e-5,
        activation: "gelu",
        pad: 50_283,
    },
    Family {
        types: &["nomic_bert"],
        names: Names {
            positions: None,
            norm: "emb_ln",
            layers: "encoder.layers.",
            projections: Projections::One("attn.Wqkv"),
            attended: "attn.out_proj",
            attention_norm: "norm1",
            up: Up::Gated(["mlp.fc12", "mlp.fc11"]),
            down: "mlp.fc2",
            feed_norm: "norm2",
            ..BERT.names
        },
        places: Places::Turned { theta: 1_000.0, local: 1_000.0 },
        biases: Biases { attention: false, up: false, down: false, norm: true },
        activation: "silu",
        ..BERT
    },
    Family {
        types: &["gte", "new"],
        names: Names {
            positions: None,
            projections: Projections::One("attention.qkv_proj"),
            attended: "attention.o_proj",
            attention_norm: "attn_ln",
            up: Up::Joined { name: "mlp.up_gate_proj", first: false },
            down: "mlp.down_proj",
            feed_norm: "mlp_ln",
            ..BERT.names
        },
        places: Places::Turned { theta: 160_000.0, local: 160_000.0 },
        biases: Biases { up: false, ..ALL },
        ..BERT
    },
];
