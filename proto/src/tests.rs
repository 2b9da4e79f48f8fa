//! The interface against `landed.txt`: what was there once stays as it was.

use std::collections::BTreeSet;

use prost::Message;
use prost_types::field_descriptor_proto::Label;
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};

const LANDED: &str = include_str!("../landed.txt");

/// One line for each method, field and value of the own package.
fn listing() -> BTreeSet<String> {
    let set = FileDescriptorSet::decode(crate::DESCRIPTORS).expect("written by the build script");
    let mut lines = BTreeSet::new();
    for file in set.file.iter().filter(|file| file.package().starts_with("matriarch.")) {
        for service in &file.service {
            for method in &service.method {
                let stream = |streams: bool| if streams { "stream " } else { "" };
                lines.insert(format!(
                    "{}.{}.{}({}{}) returns ({}{})",
                    file.package(),
                    service.name(),
                    method.name(),
                    stream(method.client_streaming()),
                    method.input_type(),
                    stream(method.server_streaming()),
                    method.output_type(),
                ));
            }
        }
        file.message_type.iter().for_each(|message| list_message(file.package(), message, &mut lines));
        file.enum_type.iter().for_each(|values| list_values(file.package(), values, &mut lines));
    }
    lines
}

fn list_message(within: &str, message: &DescriptorProto, lines: &mut BTreeSet<String>) {
    let name = format!("{within}.{}", message.name());
    lines.extend(message.field.iter().map(|field| format!("{name} {:>3} = {}", field.number(), kind(field))));
    message.nested_type.iter().for_each(|nested| list_message(&name, nested, lines));
    message.enum_type.iter().for_each(|values| list_values(&name, values, lines));
}

fn list_values(within: &str, values: &EnumDescriptorProto, lines: &mut BTreeSet<String>) {
    let line = |(number, name): (i32, &str)| format!("{within}.{} {number:>3} = {name}", values.name());
    lines.extend(values.value.iter().map(|value| line((value.number(), value.name()))));
}

/// Label, type and name.
fn kind(field: &FieldDescriptorProto) -> String {
    let label = match field.label() {
        Label::Repeated => "repeated ",
        Label::Optional | Label::Required if field.proto3_optional() => "optional ",
        Label::Optional | Label::Required => "",
    };
    let plain = || field.r#type().as_str_name().trim_start_matches("TYPE_").to_lowercase();
    let name = if field.type_name().is_empty() { plain() } else { field.type_name().to_owned() };
    format!("{label}{name} {}", field.name())
}

#[test]
fn what_has_landed_is_never_changed_and_what_is_new_is_listed() {
    let (now, landed) = (listing(), LANDED.lines().map(str::to_owned).collect::<BTreeSet<_>>());
    let lines = |lines: Vec<&String>| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    let changed = lines(landed.difference(&now).collect());
    assert!(changed.is_empty(), "callers rely on these, which are gone or changed:\n{changed}");
    let new = lines(now.difference(&landed).collect());
    assert!(new.is_empty(), "add these to proto/landed.txt:\n{new}");
    assert!(now.iter().any(|line| line.contains("Admin.Switchover(")), "{now:#?}");
}
