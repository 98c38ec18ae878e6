//! The public API, read from its descriptors.

use std::fmt;
use std::sync::LazyLock;

use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor, Value,
};

const PACKAGE: &str = "tern.v1";

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(tern_proto::DESCRIPTORS).expect("descriptors"));

/// The services that no gateway offers. A push relay is a program of its own.
const ELSEWHERE: &[&str] = &["PushRelay"];

/// Returns every unary method of a platform.
pub fn unary_methods() -> Vec<MethodDescriptor> {
    let services = POOL
        .services()
        .filter(|service| service.package_name() == PACKAGE && !ELSEWHERE.contains(&service.name()));
    let methods: Vec<_> = services
        .flat_map(|service| service.methods().collect::<Vec<_>>())
        .collect();
    methods
        .into_iter()
        .filter(|method| !method.is_client_streaming() && !method.is_server_streaming())
        .collect()
}

/// Returns `Service/Method`.
pub fn path(method: &MethodDescriptor) -> String {
    format!("{}/{}", method.parent_service().name(), method.name())
}

/// Returns the message of the public API with this name.
pub fn message(name: &str) -> MessageDescriptor {
    POOL.get_message_by_name(&format!("{PACKAGE}.{name}"))
        .unwrap_or_else(|| panic!("there is no message {name}"))
}

/// The path to a field that holds no message, such as `envelope.kind`.
#[derive(Clone)]
pub struct Leaf(Vec<FieldDescriptor>);

/// Returns every field below a message that holds no message.
pub fn leaves(message: &MessageDescriptor) -> Vec<Leaf> {
    let mut found = Vec::new();
    collect(message, &mut Vec::new(), &mut found);
    found
}

fn collect(message: &MessageDescriptor, way: &mut Vec<FieldDescriptor>, found: &mut Vec<Leaf>) {
    for field in message.fields() {
        // A message that contains itself is entered once.
        if way.contains(&field) {
            continue;
        }
        let kind = field.kind();
        way.push(field);
        match kind {
            Kind::Message(inner) => collect(&inner, way, found),
            _ => found.push(Leaf(way.clone())),
        }
        way.pop();
    }
}

impl Leaf {
    pub fn name(&self) -> &str {
        self.field().name()
    }

    /// Returns the name of the message that has this field.
    pub fn message(&self) -> String {
        self.field().parent_message().name().to_owned()
    }

    pub fn kind(&self) -> Kind {
        self.field().kind()
    }

    pub fn is_list(&self) -> bool {
        self.field().is_list()
    }

    /// Returns whether the field holds ids of the platform.
    pub fn is_id(&self) -> bool {
        let name = self.name();
        let is_others = name.starts_with("external_") || name == "bundle_id";
        (name.ends_with("_id") || name.ends_with("_ids")) && !is_others
    }

    fn field(&self) -> &FieldDescriptor {
        self.0.last().expect("a field")
    }

    /// Sets the field to `value`. In a repeated field, `value` becomes the only element.
    pub fn put(&self, message: &mut DynamicMessage, value: Value) {
        let (last, way) = self.0.split_last().expect("a field");
        let mut at = message;
        for field in way {
            let inside = at.get_field_mut(field);
            if let Value::List(items) = inside
                && items.is_empty()
            {
                items.push(Value::default_value(&field.kind()));
            }
            let inside = match inside {
                Value::List(items) => &mut items[0],
                inside => inside,
            };
            at = inside.as_message_mut().expect("a message");
        }
        let value = match value {
            value @ Value::List(_) => value,
            value if last.is_list() => Value::List(vec![value]),
            value => value,
        };
        at.set_field(last, value);
    }
}

impl fmt::Display for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.0.iter().map(FieldDescriptor::name).collect();
        f.write_str(&names.join("."))
    }
}

/// Converts a generated message to a dynamic one.
pub fn dynamic(name: &str, message: &impl prost::Message) -> DynamicMessage {
    let mut dynamic = DynamicMessage::new(self::message(name));
    dynamic.transcode_from(message).expect("the same message");
    dynamic
}

/// Returns whether a field of this name, at any depth, holds `value`.
pub fn holds(message: &DynamicMessage, name: &str, value: &Value) -> bool {
    message
        .fields()
        .any(|(field, held)| (field.name() == name && is_or_has(held, value)) || within(held, name, value))
}

fn is_or_has(held: &Value, value: &Value) -> bool {
    held == value || matches!(held, Value::List(items) if items.contains(value))
}

fn within(held: &Value, name: &str, value: &Value) -> bool {
    match held {
        Value::Message(message) => holds(message, name, value),
        Value::List(items) => items.iter().any(|item| within(item, name, value)),
        _ => false,
    }
}

/// Returns the text of a field of this name, at any depth, or `None` if there is no such field.
pub fn text(message: &DynamicMessage, name: &str) -> Option<String> {
    message.fields().find_map(|(field, held)| match held {
        Value::String(text) if field.name() == name => Some(text.clone()),
        Value::Message(inner) => text(inner, name),
        _ => None,
    })
}
