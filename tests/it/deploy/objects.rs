//! Rendering an overlay into its objects.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::LazyLock;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{ADDED, CLUSTERS, RESTORE, folder};
use crate::support::tool;

/// One object, as applied.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) json: Value,
}

impl Object {
    /// The object as its type; panics if it is of another type.
    pub(super) fn typed<T: DeserializeOwned>(&self) -> T {
        serde_json::from_value(self.json.clone())
            .unwrap_or_else(|error| panic!("{} {}: {error}", self.kind, self.name))
    }
}

/// Objects that are applied together, and their name in failure messages.
#[derive(Debug)]
pub(super) struct Bundle {
    pub(super) name: String,
    pub(super) objects: Vec<Object>,
}

impl Bundle {
    /// All objects of a kind, as their type.
    pub(super) fn all<T: DeserializeOwned>(&self, kind: &str) -> Vec<T> {
        self.objects.iter().filter(|object| object.kind == kind).map(Object::typed).collect()
    }

    /// The object of this kind and name.
    pub(super) fn one(&self, kind: &str, name: &str) -> &Object {
        let found = self.objects.iter().find(|object| object.kind == kind && object.name == name);
        found.unwrap_or_else(|| panic!("{} has no {kind} {name}", self.name))
    }
}

/// Every cluster alone, and with each addition.
pub(super) static BUNDLES: LazyLock<Vec<Bundle>> = LazyLock::new(|| {
    let mut bundles: Vec<Bundle> = CLUSTERS.map(overlay).into();
    let added: Vec<Object> = ADDED.into_iter().flat_map(|name| overlay(name).objects).collect();
    let whole = |cluster: &Bundle, with: &str, added: &[Object]| Bundle {
        name: format!("{} with {with}", cluster.name),
        objects: cluster.objects.iter().chain(added).cloned().collect(),
    };
    let dev = whole(&bundles[0], "all additions", &added);
    let production = whole(&bundles[1], "all additions", &added);
    let restore = whole(&bundles[2], RESTORE, &overlay(RESTORE).objects);
    bundles.extend([dev, production, restore]);
    bundles
});

/// Renders one overlay.
pub(super) fn overlay(name: &str) -> Bundle {
    Bundle { name: name.to_owned(), objects: render(&folder().join("overlays").join(name)) }
}

/// Renders a folder.
pub(super) fn render(folder: &Path) -> Vec<Object> {
    let rendered = run(Command::new(tool("kubectl")).arg("kustomize").arg(folder));
    parse(&String::from_utf8(rendered.stdout).expect("kubectl writes UTF-8"))
}

/// The objects of a stream of YAML documents.
pub(super) fn parse(text: &str) -> Vec<Object> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).expect("YAML");
    let field = |json: &Value, pointer: &str| {
        let text = json.pointer(pointer).and_then(Value::as_str);
        text.unwrap_or_else(|| panic!("{pointer} is missing: {json}")).to_owned()
    };
    let object = |json: Value| Object {
        api_version: field(&json, "/apiVersion"),
        kind: field(&json, "/kind"),
        name: field(&json, "/metadata/name"),
        json,
    };
    documents.into_iter().map(object).collect()
}

/// Runs a program and requires its success.
pub(super) fn run(command: &mut Command) -> Output {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().unwrap_or_else(|error| panic!("{name}: {error}: see `make setup`"));
    let text = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).join("\n");
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    output
}
