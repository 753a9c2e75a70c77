//! Published signed notes, checkpoints and cosignatures; see `vectors/README.md`.

use jingwei_proto::checkpoint::{Checkpoint, CheckpointError, verify_cosignature};
use jingwei_proto::key::{SecretKey, Signer as _};
use jingwei_proto::note::{Algorithm, Note, NoteError, NoteKey, sign};
use jingwei_proto::time::Time;
use jingwei_proto::tlog_proof::TlogProof;
use jingwei_proto::witness::{AddCheckpoint, Seen, read_cosignature, read_size};

const C2SP: &str = include_str!("vectors/c2sp-note.txt");
const COSIGNED: &str = include_str!("vectors/c2sp-cosignature.txt");
const REQUEST: &str = include_str!("vectors/c2sp-witness-request.txt");
const ANSWER: &str = include_str!("vectors/c2sp-witness-answer.txt");
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

/// Their keys are not published, so what is read of the examples is all but the verdict.
#[test]
fn the_specification_s_cosigned_checkpoint() {
    let note = note(COSIGNED);
    let checkpoint: Checkpoint = note.text.parse().unwrap();
    assert_eq!(checkpoint.origin, "example.com/behind-the-sofa");
    assert_eq!(checkpoint.size, 20_852_163);
    assert_eq!(checkpoint.to_string(), note.text);
    let [log, witness] = &note.signatures[..] else {
        panic!("the log has signed, and a witness");
    };
    assert_eq!((&*log.name, log.signature.len()), (&*checkpoint.origin, 64));
    // A cosignature is its time in seconds, and then an ordinary signature.
    assert_eq!(witness.name, "witness.example.com/w1");
    let (seconds, signature) = witness.signature.split_first_chunk().unwrap();
    let time = Time::from_seconds(i64::from_be_bytes(*seconds)).unwrap();
    assert_eq!(time.to_string(), "2023-03-20T12:25:47Z");
    assert_eq!(signature.len(), 64);
    let stranger = SecretKey::from_seed(&[1; 32]).public().clone();
    let other = NoteKey::new(&*witness.name, Algorithm::CosignatureV1, stranger).unwrap();
    let verdict = verify_cosignature(&note, &other);
    assert!(matches!(verdict, Err(NoteError::Unsigned(_))));
}

#[test]
fn the_specification_s_request_to_a_witness_and_its_answer() {
    let request = AddCheckpoint::parse(REQUEST.as_bytes()).unwrap();
    assert_eq!(request.to_string(), REQUEST);
    assert_eq!((request.old, request.proof.len()), (20_852_014, 4));
    assert_eq!(request.checkpoint().unwrap().size, 20_852_163);
    assert_eq!(request.note.text, note(COSIGNED).text);
    // The log signs it twice, with a key of another kind too.
    let [first, second] = &request.note.signatures[..] else {
        panic!("two signatures");
    };
    assert_eq!(first, &note(COSIGNED).signatures[0]);
    assert_eq!(first.name, second.name);
    assert_ne!(first.key_hash, second.key_hash);
    let nothing = Seen::nothing();
    assert_eq!(request.judge(&[], &nothing).unwrap_err().status(), 404);

    // Lines by keys that nobody here knows are passed over, and no size.
    let public = SecretKey::from_seed(&[1; 32]).public().clone();
    let unknown = NoteKey::new("witness.example/w1", Algorithm::CosignatureV1, public).unwrap();
    let read = read_cosignature(ANSWER, &request.note.text, &unknown);
    assert!(matches!(read, Err(NoteError::Unsigned(_))), "{read:?}");
    assert_eq!(read_size(ANSWER), None);
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
