//! Objects drawn from the schemas of the definitions themselves: every field that a schema has, with values of
//! its type, length and pattern that are likely to mean something, or to be trouble.
//!
//! Rules across fields (CEL) are not looked at: what they would refuse must do no harm either.

use std::collections::{BTreeMap, HashMap};

use actors_api::crds;
use regex_automata::meta::Regex;
use serde_json::{Map, Value, json};

/// Values that strings are drawn from, as far as the schema takes them.
const TEXTS: &[&str] = &[
    "",
    "web",
    "edge",
    "shop",
    "bad",
    "bad-0",
    "bad-1",
    "bad-2",
    "http",
    "portreeve",
    "portreeve.dev/gateway-controller",
    "gateway.networking.k8s.io",
    "Gateway",
    "Service",
    "XBackend",
    "gateway.networking.x-k8s.io",
    "Secret",
    "ConfigMap",
    "ListenerSet",
    "HTTPRoute",
    "HTTP",
    "HTTPS",
    "TLS",
    "TCP",
    "UDP",
    "example.com",
    "*.example.com",
    "*.com",
    "EXAMPLE.com",
    "a.example.com:80",
    "/",
    "/a",
    "x-name",
    "X Name",
    "Host",
    "Content-Length",
    "transfer-encoding",
    "a\r\nb: c",
    "*",
    "https://*.example.com",
    "http://a:b",
    "(",
    "(a+)+$",
    "[a-z]{1,1000}",
    "10s",
    "0s",
    "99999h",
    "1h1h",
    "10.0.0.9",
    "192.0.2.0/29",
    "0.0.0.0/0",
    "::/0",
    "not an address",
    "spiffe://a/b",
    "\u{0}",
    "ünïcödé",
];

/// Paths, for the fields that are likely to be one: few of them would be drawn from all values.
const PATHS: &[&str] =
    &["/", "/a", "/a/b", "//", "/a/../../b", "/a/./b", "/a b", "/a?b#c", "/%zz", "/%00", "/%2e%2E/b"];

/// What is generated: `apiVersion`, kind, whether it lies in a namespace, and the schema of its spec.
pub struct Definition {
    api_version: String,
    pub kind: String,
    is_namespaced: bool,
    spec: Value,
}

/// All kinds of Gateway API, as the experimental channel has them, and our own.
pub fn definitions() -> Vec<Definition> {
    let of_gateway_api = crds::EXPERIMENTAL.iter().map(|(file, yaml)| {
        serde_saphyr::from_str::<Value>(yaml).unwrap_or_else(|error| panic!("{file}: {error}"))
    });
    let ours = crds::ours().into_iter().map(|crd| serde_json::to_value(crd).unwrap());
    of_gateway_api.chain(ours).filter_map(|crd| definition(&crd)).collect()
}

fn definition(crd: &Value) -> Option<Definition> {
    let spec = &crd["spec"];
    let version = spec["versions"].as_array()?.iter().rfind(|version| version["served"] == true)?;
    let version = spec["versions"].as_array()?.iter().find(|known| known["name"] == "v1").unwrap_or(version);
    Some(Definition {
        api_version: format!("{}/{}", spec["group"].as_str()?, version["name"].as_str()?),
        kind: spec["names"]["kind"].as_str()?.to_owned(),
        is_namespaced: spec["scope"] == "Namespaced",
        spec: version["schema"]["openAPIV3Schema"]["properties"]["spec"].clone(),
    })
}

/// Draws objects.
pub struct Source {
    state: u64,
    /// How many more values an object may have.
    budget: u32,
    patterns: HashMap<String, Regex>,
}

impl Source {
    pub fn new(seed: u64) -> Self {
        Self { state: seed | 1, budget: 0, patterns: HashMap::new() }
    }

    /// A number below `bound` (xorshift64*).
    pub fn below(&mut self, bound: usize) -> usize {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let drawn = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(drawn).unwrap() % bound.max(1)
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    /// An object, made after those that must not notice it.
    pub fn object(&mut self, definition: &Definition, number: usize) -> Value {
        self.budget = 600;
        let mut spec = self.value(&definition.spec, 0);
        self.attach(&definition.kind, &mut spec);
        let mut metadata = json!({
            "name": format!("bad-{number}"), "generation": 1, "uid": format!("bad-{number}"),
            "creationTimestamp": "2026-01-01T00:00:00Z",
        });
        if definition.is_namespaced {
            metadata["namespace"] = json!("bad");
        }
        let Definition { api_version, kind, .. } = definition;
        json!({ "apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec })
    }

    /// Most objects belong to something that is there: else they would not be looked at.
    fn attach(&mut self, kind: &str, spec: &mut Value) {
        if self.one_in(4) {
            return;
        }
        match kind {
            "Gateway" => spec["gatewayClassName"] = json!("portreeve"),
            "GatewayClass" => spec["controllerName"] = json!("portreeve.dev/gateway-controller"),
            "ListenerSet" => spec["parentRef"] = json!({ "name": "bad-0" }),
            kind if kind.ends_with("Route") => {
                spec["parentRefs"] = json!([{ "name": "edge", "namespace": "shop" }, { "name": "bad-0" }, { "name": "bad-1" }]);
                self.lead_outside(spec);
            }
            _ => {}
        }
    }

    /// Some rules lead to XBackends, whose names would hardly be drawn together with their kind.
    fn lead_outside(&mut self, spec: &mut Value) {
        for rule in spec["rules"].as_array_mut().into_iter().flatten() {
            if self.one_in(3) {
                let (group, name) = ("gateway.networking.x-k8s.io", format!("bad-{}", self.below(3)));
                rule["backendRefs"] = json!([{ "group": group, "kind": "XBackend", "name": name }]);
            }
        }
    }

    fn value(&mut self, schema: &Value, depth: usize) -> Value {
        self.budget = self.budget.saturating_sub(1);
        if let Some(choices) = schema["enum"].as_array() {
            return choices[self.below(choices.len())].clone();
        }
        match schema["type"].as_str() {
            Some("object") => self.fields(schema, depth),
            Some("array") => self.items(schema, depth),
            Some("string") => json!(self.text(schema)),
            Some("integer" | "number") => json!(self.number(schema)),
            Some("boolean") => json!(self.one_in(2)),
            _ => json!(self.below(3)),
        }
    }

    fn fields(&mut self, schema: &Value, depth: usize) -> Value {
        let mut made = Map::new();
        if let Some(of_all) = schema["additionalProperties"].as_object() {
            let of_all = Value::Object(of_all.clone());
            for _ in 0..self.below(3) {
                made.insert(TEXTS[self.below(TEXTS.len())].to_owned(), self.value(&of_all, depth + 1));
            }
        }
        let none = Map::new();
        let properties: BTreeMap<&String, &Value> =
            schema["properties"].as_object().unwrap_or(&none).iter().collect();
        // What an enumeration says decides which of the other fields make sense.
        let chosen: Vec<(&String, Value)> = properties
            .iter()
            .filter(|(_, schema)| schema["enum"].is_array())
            .map(|(name, schema)| (*name, self.value(schema, depth + 1)))
            .collect();
        let means = |name: &str| {
            chosen
                .iter()
                .any(|(_, value)| value.as_str().is_some_and(|value| value.eq_ignore_ascii_case(name)))
        };
        let is_one_of_many = properties.keys().any(|name| means(name));
        for (name, schema_of) in &properties {
            let required = schema["required"].as_array().is_some_and(|names| names.contains(&json!(name)));
            let rarity = if is_one_of_many { 12 } else { 2 + depth / 3 };
            if required || means(name) || (self.budget > 0 && self.one_in(rarity)) {
                let known = chosen.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
                let known = known.or_else(|| self.path(name, schema_of));
                made.insert((*name).clone(), known.unwrap_or_else(|| self.value(schema_of, depth + 1)));
            }
        }
        Value::Object(made)
    }

    fn path(&mut self, name: &str, schema: &Value) -> Option<Value> {
        let may_be_one =
            schema["type"] == "string" && (name == "value" || name.to_lowercase().contains("path"));
        let drawn = PATHS[self.below(PATHS.len())];
        (may_be_one && self.one_in(2) && self.takes(schema, drawn)).then(|| json!(drawn))
    }

    fn items(&mut self, schema: &Value, depth: usize) -> Value {
        let bound = |name: &str, default: u64| schema[name].as_u64().unwrap_or(default) as usize;
        let (least, most) = (bound("minItems", 0), bound("maxItems", 16));
        // As many as may be, now and then.
        let count = if self.one_in(15) { most } else { self.below(3) };
        let mut made = Vec::new();
        for place in 0..count.clamp(least, most.max(least)) {
            if place >= least && self.budget == 0 {
                break;
            }
            made.push(self.value(&schema["items"], depth + 1));
        }
        Value::Array(made)
    }

    fn number(&mut self, schema: &Value) -> i64 {
        let (least, most) = (schema["minimum"].as_i64(), schema["maximum"].as_i64());
        let drawn =
            [0, 1, -1, 22, 80, 443, 8080, 65_535, 65_536, 1_000_000, i64::from(i32::MAX)][self.below(11)];
        drawn.clamp(least.unwrap_or(i64::from(i32::MIN)), most.unwrap_or(i64::from(i32::MAX)))
    }

    /// A text of the schema's length and pattern; the longest that may be, now and then.
    fn text(&mut self, schema: &Value) -> String {
        let (least, most) = (schema["minLength"].as_u64().unwrap_or(0), schema["maxLength"].as_u64());
        if self.one_in(25) {
            let letter = ["a", "(", "a.", "/a", "."][self.below(5)];
            let most = usize::try_from(most.unwrap_or(10_240)).unwrap().min(10_240);
            let long: String = letter.chars().cycle().take(most).collect();
            if self.takes(schema, &long) {
                return long;
            }
        }
        let start = self.below(TEXTS.len());
        let fits = |text: &str| {
            let length = text.chars().count() as u64;
            length >= least && most.is_none_or(|most| length <= most)
        };
        let mut in_turn = TEXTS[start..].iter().chain(&TEXTS[..start]);
        let found = in_turn.find(|text| fits(text) && self.takes(schema, text));
        found.map_or_else(|| "a".repeat(usize::try_from(least).unwrap().max(1)), |text| (*text).to_owned())
    }

    fn takes(&mut self, schema: &Value, text: &str) -> bool {
        let Some(pattern) = schema["pattern"].as_str() else { return true };
        let compiled = self.patterns.entry(pattern.to_owned());
        compiled.or_insert_with(|| Regex::new(pattern).expect("a pattern of a definition")).is_match(text)
    }
}
