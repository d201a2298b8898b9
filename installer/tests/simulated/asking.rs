//! Releases whose portal asks something, and says it in a template.

use bundle::index::{Blob, Index, InstallTarget, Pack, PackFile, PackManifest};
use bundle::oci::Digest;
use serde_json::json;

use super::release::{Variant, release};

/// The pack that asks.
pub fn portal(index: &mut Index) -> &mut Pack {
    index.packs.iter_mut().find(|pack| pack.name == "portal").unwrap()
}

/// The first release asks `greeting`, `place` and `old`; a later one `replicas` and `contact` instead of `old`. Place and
/// contact have no default.
pub fn asking(variant: Variant) -> (Index, Vec<Vec<u8>>) {
    let (mut index, mut blobs) = release(variant);
    let mut questions = vec![
        json!({"name": "greeting", "text": "What the portal says", "kind": "text", "default": "Hello"}),
        json!({"name": "place", "text": "Where it stands", "kind": "text", "max-length": 20}),
    ];
    let (data, file) = if variant == Variant::First {
        questions.push(json!({"name": "old", "text": "Whether it is old", "kind": "boolean", "default": true}));
        ("old: \"${old}\"", "old ${old}\n")
    } else {
        let limits =
            json!({"name": "replicas", "text": "How many", "kind": "integer", "min": 1, "max": 9, "default": 2});
        questions.push(limits);
        questions.push(json!({"name": "contact", "text": "Whom to ask", "kind": "text"}));
        ("replicas: ${replicas}\n  contact: \"${contact}\"", "replicas ${replicas}\n")
    };
    let manifest = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: \"at-${{place}}\", namespace: portal}}\n\
         data:\n  greeting: \"${{greeting}}\"\n  {data}\n"
    );
    let pack = portal(&mut index);
    pack.descriptor.questions = serde_json::from_value(json!(questions)).unwrap();
    let (digest, size) = (Digest::sha256_of(manifest.as_bytes()), manifest.len() as u64);
    pack.descriptor.manifests.push(PackManifest { name: "said".to_owned(), digest, size, template: true });
    let (digest, size) = (Digest::sha256_of(file.as_bytes()), file.len() as u64);
    let install = vec![InstallTarget { path: "/etc/portal.conf".to_owned(), mode: "0644".to_owned() }];
    pack.descriptor.files.push(PackFile { name: "portal.conf".to_owned(), digest, size, template: true, install });
    for text in [manifest.as_str(), file] {
        let (digest, size) = (Digest::sha256_of(text.as_bytes()), text.len() as u64);
        index.blobs.push(Blob { digest, size, media_type: String::new(), packed: None });
        blobs.push(text.as_bytes().to_vec());
    }
    (index, blobs)
}
