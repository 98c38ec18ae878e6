//! Tests of the names that other languages derive from the protos: each file states its packages and prefixes, and no
//! two things in a package have the same name.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use prost::Message as _;
use prost_types::{FileDescriptorProto, FileDescriptorSet, FileOptions};
use tern_proto::DESCRIPTORS;

fn files() -> Vec<FileDescriptorProto> {
    let files = FileDescriptorSet::decode(DESCRIPTORS).unwrap().file;
    let own = |file: &FileDescriptorProto| file.package().starts_with("tern.");
    let own: Vec<_> = files.into_iter().filter(own).collect();
    assert!(own.len() > 10, "the protos are there");
    own
}

fn options(file: &FileDescriptorProto) -> FileOptions {
    file.options.clone().unwrap_or_default()
}

/// Returns the file's name without directory and extension, for example `presence` for `tern/v1/presence.proto`.
fn stem(file: &FileDescriptorProto) -> &str {
    let name = file.name().rsplit('/').next().unwrap();
    name.trim_end_matches(".proto")
}

#[test]
fn each_file_says_how_it_is_called_in_each_language() {
    for file in files() {
        let options = options(&file);
        let internal = file.package() == "tern.internal.v1";
        assert!(internal || file.package() == "tern.v1", "{}", file.name());
        let (dotted, short) = if internal {
            ("Tern.Internal.V1", "TernInternal")
        } else {
            ("Tern.V1", "Tern")
        };
        let said = [
            options.csharp_namespace(),
            options.php_namespace(),
            options.php_metadata_namespace(),
            options.ruby_package(),
            options.java_package(),
            options.go_package(),
            options.swift_prefix(),
            options.objc_class_prefix(),
        ];
        let path = file.package().replace('.', "/");
        let expected = [
            dotted.to_owned(),
            dotted.replace('.', "\\"),
            format!("{}\\Metadata", dotted.replace('.', "\\")),
            dotted.replace('.', "::"),
            format!("com.{}", file.package()),
            format!("{path};{}", file.package().replace('.', "")),
            short.to_owned(),
            if internal { "TRNI" } else { "TRN" }.to_owned(),
        ];
        assert_eq!(said.map(str::to_owned), expected, "{}", file.name());
        assert!(options.java_multiple_files(), "{}", file.name());
    }
}

/// A language that makes one class of each message, enum and service cannot have two of the same name, even in
/// different files.
#[test]
fn no_two_things_of_a_package_have_one_name() {
    let mut taken: BTreeMap<(String, String), String> = BTreeMap::new();
    for file in files() {
        let mut names = vec![
            // These are the classes that Java, C# and Objective-C make for the file itself.
            options(&file).java_outer_classname().to_owned(),
            format!("{}Reflection", capitalised(stem(&file))),
            format!("{}Root", capitalised(stem(&file))),
        ];
        names.extend(file.message_type.iter().map(|message| message.name().to_owned()));
        names.extend(file.enum_type.iter().map(|values| values.name().to_owned()));
        for service in &file.service {
            // A service is a class of its own in C#, and a class around its stubs in Java, Kotlin and Python.
            names.push(service.name().to_owned());
            names.extend(["Grpc", "Client", "Server", "Stub"].map(|end| format!("{}{end}", service.name())));
        }
        for name in names {
            assert!(
                !name.is_empty(),
                "{}: no name for Java's outer class",
                file.name()
            );
            let place = (file.package().to_owned(), name.to_lowercase());
            let before = taken.insert(place, file.name().to_owned());
            assert_eq!(before, None, "{name} of {} is there already", file.name());
        }
    }
}

fn capitalised(word: &str) -> String {
    let (first, rest) = word.split_at(1);
    format!("{}{rest}", first.to_uppercase())
}
