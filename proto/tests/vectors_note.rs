//! Published signed notes, checkpoints and cosignatures; see `vectors/README.md`.

use jingwei_proto::checkpoint::{Checkpoint, CheckpointError, verify_cosignature};
use jingwei_proto::key::SecretKey;
use jingwei_proto::note::{Algorithm, Note, NoteError, NoteKey, sign};
use jingwei_proto::tlog_proof::TlogProof;

const C2SP: &str = include_str!("vectors/c2sp-note.txt");
const GO: &str = include_str!("vectors/go-note.txt");
const CHECKPOINT: &str = include_str!("vectors/checkpoint.txt");

const C2SP_KEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
const PETER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const ENOCH: &str = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop";

const LOG: &str =
    "arche2025h1.staging.ct.transparency.dev+ba2f06c0+AU0vHmlGCS/PdN8b2OaGmKprLI8HKM+dJ472xgFYh15f";
const WITNESSES: [&str; 4] = [
    "transparency.dev/DEV:witness-little-garden+d8042a87+BCtusOxINQNUTN5Oj8HObRkh2yHf/MwYaGX4CPdiVEPM",
    "witness1.smartit.nu/witness1+a48c820f+BPSFWg9G6KPiO7QPryYO5Xq4oYJJ+kAvLKLSimDhoxMO",
    "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2",
    "witness.stagemole.eu+67f7aea0+BEqSG3yu9YrmcM3BHvQYTxwFj3uSWakQepafafpUqklv",
];

fn key(text: &str) -> NoteKey {
    let key: NoteKey = text.parse().unwrap();
    assert_eq!(key.to_string(), text);
    key
}

fn note(text: &str) -> Note {
    let note = Note::parse(text.as_bytes()).unwrap();
    assert_eq!(note.to_string(), text);
    note
}

#[test]
fn the_specification_s_note() {
    assert_eq!(note(C2SP).text, "This is an example message.\n");
    assert_eq!(note(C2SP).verify(&key(C2SP_KEY)), Ok(()));
    let changed = C2SP.replace("message", "massage");
    assert!(matches!(
        note(&changed).verify(&key(C2SP_KEY)),
        Err(NoteError::Forged(_))
    ));
}

#[test]
fn go_s_notes() {
    assert_eq!(note(GO).verify(&key(PETER)), Ok(()));
    assert_eq!(note(GO).verify(&key(ENOCH)), Ok(()));
    assert!(matches!(
        note(GO).verify(&key(C2SP_KEY)),
        Err(NoteError::Unsigned(_))
    ));

    // Wrong length and unknown algorithm, each with the hash that would belong to it.
    for bad in [
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    ] {
        assert!(bad.parse::<NoteKey>().is_err());
    }

    let (text, peter) = (&note(GO).text, note(GO).signatures[0].to_string() + "\n");
    for bad in [
        text.clone(),
        format!("{text}\n"),
        format!("{text}\n{}", peter.trim_end()),
        format!("\x01{text}\n{peter}"),
        format!("{text}\n{}", peter.replace("PeterNeumann", "Bad Name")),
        format!("{text}\n{peter}Unexpected line.\n"),
        format!("{text}\n{}", peter.repeat(101)),
    ] {
        assert!(
            matches!(Note::parse(bad.as_bytes()), Err(NoteError::Malformed(_))),
            "{bad}"
        );
    }
    assert!(Note::parse(&[b"\xff", GO.as_bytes()].concat()).is_err());
}

#[test]
fn go_s_signature_is_reproduced() {
    use base64::Engine as _;
    // From PRIVATE+KEY+PeterNeumann+c74f20a3+…: the algorithm's byte, then the seed.
    let secret = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
    let secret = base64::prelude::BASE64_STANDARD.decode(secret).unwrap();
    let secret = SecretKey::from_seed(&secret[1..].try_into().unwrap());
    let signature = sign(&note(GO).text, "PeterNeumann", &secret).unwrap();
    assert_eq!(signature, note(GO).signatures[0]);
}

#[test]
fn a_public_log_s_checkpoint() {
    let (checkpoint, note) = Checkpoint::open(CHECKPOINT.as_bytes(), &key(LOG)).unwrap();
    assert_eq!(checkpoint.origin, "arche2025h1.staging.ct.transparency.dev");
    assert_eq!(checkpoint.size, 1_432_088_532);
    assert_eq!(checkpoint.to_string(), note.text);
    // The first signature, of a kind that only CT logs use, is passed over.
    assert_eq!(note.signatures.len(), 6);
    for witness in WITNESSES {
        let time = verify_cosignature(&note, &key(witness)).unwrap();
        assert_eq!(time.to_string(), "2026-05-23T21:50:24Z");
    }
}

#[test]
fn a_changed_checkpoint_holds_for_nobody() {
    let changed = CHECKPOINT.replace("1432088532", "1432088533");
    assert!(matches!(
        Checkpoint::open(changed.as_bytes(), &key(LOG)),
        Err(CheckpointError::Note(NoteError::Forged(_)))
    ));
    for witness in WITNESSES {
        let verdict = verify_cosignature(&note(&changed), &key(witness));
        assert!(matches!(verdict, Err(NoteError::Forged(_))));
    }
    // The same keys as ordinary note keys are other keys, and have signed nothing.
    for witness in WITNESSES.map(key) {
        let (name, public) = (witness.name().to_owned(), witness.public().clone());
        let plain = NoteKey::new(name, Algorithm::Ed25519, public).unwrap();
        assert!(matches!(
            note(CHECKPOINT).verify(&plain),
            Err(NoteError::Unsigned(_))
        ));
    }
}

/// The head of the example of C2SP tlog-proof; its own checkpoint is printed abridged there.
#[test]
fn the_specification_s_proof() {
    let text = [
        "c2sp.org/tlog-proof@v1\n\
         extra YWdlLXYxLjIuMS1kYXJ3aW4tYXJtNjQudGFyLmd6kYXJ3aW4tYXJ\n\
         index 73894\n\
         gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=\n\
         B95lDa8R83lS8n0eG+o0buTxRKQTYFi//1U8anccXmA=\n\
         EKNzoDWG8LGC0Yp9o+sv3qllpMP9uHQ9B20KNL+Q1zs=\n\
         RoopEkOdqkYqMB4MJXrbt/hMjOxsVn0IrWjpz1ZMMes=\n\
         AHCioX9nLjsrse6YhjRRmk1WUEirVOLLRoOQ6vfO5vk=\n\n",
        CHECKPOINT,
    ]
    .concat();
    let proof: TlogProof = text.parse().unwrap();
    assert_eq!((proof.index, proof.hashes.len()), (73_894, 5));
    let extra = proof.extra.as_deref().unwrap();
    assert!(extra.starts_with(b"age-v1.2.1-darwin-arm64.tar.gz"));
    assert_eq!(proof.checkpoint, CHECKPOINT);
    assert_eq!(proof.to_string(), text);
}
