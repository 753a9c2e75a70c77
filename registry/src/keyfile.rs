//! Key files: Ed25519 signing keys and the TLS identity, in PEM, readable by their owner alone.
//!
//! A file is created once, durably, and never overwritten: a key that is lost cannot be made
//! again, and one that is replaced unseen would leave its agency unable to sign. The signing
//! keys are PKCS#8 (RFC 8410 §7), so that `openssl pkey -in FILE` reads them.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jingwei_proto::key::{KeyId, SecretKey};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::disk::parent;
use crate::tls;

/// The bytes before the seed in the PKCS#8 form of an Ed25519 key (RFC 8410 §7, version 1).
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// No key or certificate of ours is near this size; a longer file is something else.
const LONGEST: u64 = 64 * 1024;

const CERT_FILE: &str = "tls.cert.pem";
const KEY_FILE: &str = "tls.key.pem";

/// Why a key could not be loaded or created.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The operating system refused.
    #[error("cannot {doing} the key file {}: {source}", path.display())]
    Io {
        /// What was being done, as a verb.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A key file already stands there; it is left as it is.
    #[error("the key file {} exists already and is not overwritten; move it away first if you mean to replace the key", .0.display())]
    Exists(PathBuf),
    /// Others than its owner may read the file.
    #[error("the key file {path} has mode {mode:04o}, so others may read it; run: chmod 600 {path}", path = path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is not what it must be.
    #[error("{} is not {expected}; restore it from a backup", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it must be.
        expected: &'static str,
    },
    /// The certificate and the key belong to different key pairs.
    #[error("{} and {} do not belong together; restore both from one backup", cert.display(), key.display())]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// A key or certificate could not be made.
    #[error("cannot make a TLS key and certificate: {0}")]
    Generate(#[from] rcgen::Error),
}

/// The key and self-signed certificate by which a process is known in TLS.
pub struct TlsIdentity {
    /// The certificate, which carries the public key.
    pub cert: CertificateDer<'static>,
    /// The private key, ECDSA P-256.
    pub key: PrivateKeyDer<'static>,
    /// The name of the public key, which statements list.
    pub id: KeyId,
}

impl Clone for TlsIdentity {
    fn clone(&self) -> TlsIdentity {
        TlsIdentity {
            cert: self.cert.clone(),
            key: self.key.clone_key(),
            id: self.id,
        }
    }
}

impl std::fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TlsIdentity({})", self.id)
    }
}

impl TlsIdentity {
    /// A new identity in memory, with its certificate and key in PEM.
    ///
    /// ECDSA P-256, since every TLS client knows it. The certificate says nothing but
    /// "Jingwei": names and dates in it are not consulted (see [`crate::tls`]).
    pub fn generate() -> Result<(TlsIdentity, String, Zeroizing<String>), KeyFileError> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(vec!["jingwei.invalid".to_owned()])?;
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, "Jingwei");
        let certificate = params.self_signed(&pair)?;
        let (cert_pem, key_pem) = (certificate.pem(), Zeroizing::new(pair.serialize_pem()));
        let identity = TlsIdentity {
            id: KeyId::of_spki(&rcgen::PublicKeyData::subject_public_key_info(&pair)),
            cert: certificate.der().clone(),
            key: pair.into(),
        };
        Ok((identity, cert_pem, key_pem))
    }

    /// The identity in the files `tls.key.pem` and `tls.cert.pem` of `dir`, made if there is none.
    pub fn load_or_create(dir: &Path) -> Result<TlsIdentity, KeyFileError> {
        let (cert_path, key_path) = (dir.join(CERT_FILE), dir.join(KEY_FILE));
        if !key_path.exists() {
            let (_, cert, key) = TlsIdentity::generate()?;
            // The certificate is written first: without its key, which makes the pair count,
            // a crash in between leaves one that nobody has seen yet and that is made again.
            remove_unused(&cert_path)?;
            create_private(&cert_path, cert.as_bytes())?;
            create_private(&key_path, key.as_bytes())?;
        }
        TlsIdentity::load(dir)
    }

    /// The identity in the files `tls.key.pem` and `tls.cert.pem` of `dir`.
    pub fn load(dir: &Path) -> Result<TlsIdentity, KeyFileError> {
        let (cert_path, key_path) = (dir.join(CERT_FILE), dir.join(KEY_FILE));
        let malformed = |path: &Path, expected| KeyFileError::Malformed {
            path: path.to_owned(),
            expected,
        };
        let key = PrivatePkcs8KeyDer::from_pem_slice(&read_private(&key_path)?)
            .map_err(|_| malformed(&key_path, "a PKCS#8 private key in PEM"))?;
        let cert = CertificateDer::from_pem_slice(&read_bounded(&cert_path)?)
            .map_err(|_| malformed(&cert_path, "a certificate in PEM"))?;
        let id = tls::key_of(&cert).map_err(|_| malformed(&cert_path, "an X.509 certificate"))?;
        let pair = KeyPair::try_from(&key)
            .map_err(|_| malformed(&key_path, "a private key that TLS can use"))?;
        if KeyId::of_spki(&rcgen::PublicKeyData::subject_public_key_info(&pair)) != id {
            return Err(KeyFileError::Mismatch {
                cert: cert_path,
                key: key_path,
            });
        }
        Ok(TlsIdentity {
            cert,
            key: key.into(),
            id,
        })
    }
}

/// Makes a new Ed25519 key and its file, which must not exist yet.
pub fn create(path: &Path) -> Result<SecretKey, KeyFileError> {
    let key = SecretKey::generate();
    save(path, &key)?;
    Ok(key)
}

/// Writes a key to a file that must not exist yet.
pub fn save(path: &Path, key: &SecretKey) -> Result<(), KeyFileError> {
    let mut pkcs8 = Zeroizing::new(PKCS8_PREFIX.to_vec());
    pkcs8.extend_from_slice(key.seed().as_slice());
    let pair = KeyPair::try_from(pkcs8.as_slice())?;
    create_private(path, Zeroizing::new(pair.serialize_pem()).as_bytes())
}

/// Reads the Ed25519 key in a file.
pub fn load(path: &Path) -> Result<SecretKey, KeyFileError> {
    let malformed = || KeyFileError::Malformed {
        path: path.to_owned(),
        expected: "an Ed25519 private key in PKCS#8 PEM",
    };
    let pkcs8 =
        PrivatePkcs8KeyDer::from_pem_slice(&read_private(path)?).map_err(|_| malformed())?;
    let seed = pkcs8
        .secret_pkcs8_der()
        .strip_prefix(&PKCS8_PREFIX)
        .and_then(|seed| <&[u8; 32]>::try_from(seed).ok())
        .ok_or_else(malformed)?;
    Ok(SecretKey::from_seed(seed))
}

/// Reads the Ed25519 key in a file, which is made first if it does not exist.
pub fn load_or_create(path: &Path) -> Result<SecretKey, KeyFileError> {
    match load(path) {
        Err(KeyFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        done => return done,
    }
    match create(path) {
        Err(KeyFileError::Exists(_)) => load(path),
        done => done,
    }
}

/// Makes a directory, with its parents, that only its owner may enter.
pub fn create_private_dir(dir: &Path) -> Result<(), KeyFileError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(io_error("make the directory of", dir))
}

/// Writes a file of mode 0600, durably and whole, that must not exist yet.
///
/// Temporary file, fsync, `link(2)`, fsync of the directory: `rename` would overwrite, and a
/// crash at any point leaves either no file or the whole one.
pub fn create_private(path: &Path, content: &[u8]) -> Result<(), KeyFileError> {
    let dir = parent(path);
    create_private_dir(dir)?;
    let temporary = dir.join(format!(".key-{:016x}.tmp", rand::random::<u64>()));
    let written = write_synced(&temporary, content).and_then(|()| fs::hard_link(&temporary, path));
    // It is of no use any more, whether the link was made or not.
    fs::remove_file(&temporary).ok();
    written
        .and_then(|()| File::open(dir)?.sync_all())
        .map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => KeyFileError::Exists(path.to_owned()),
            _ => io_error("create", path)(source),
        })
}

/// Reads a file that only its owner may read.
pub fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let file = File::open(path).map_err(io_error("open", path))?;
    let mode = file.metadata().map_err(io_error("look at", path))?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    read_open(file, path)
}

fn read_bounded(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    read_open(File::open(path).map_err(io_error("open", path))?, path)
}

fn read_open(file: File, path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let mut content = Zeroizing::new(Vec::with_capacity(4096));
    file.take(LONGEST)
        .read_to_end(&mut content)
        .map_err(io_error("read", path))?;
    Ok(content)
}

fn write_synced(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn remove_unused(path: &Path) -> Result<(), KeyFileError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(io_error("replace", path)(source))
        }
        _ => Ok(()),
    }
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeyFileError {
    let path = path.to_owned();
    move |source| KeyFileError::Io {
        doing,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jingwei_proto::key::Signer as _;
    use std::os::unix::fs::PermissionsExt as _;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_key_is_made_once_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys/signing.pem");
        let made = load_or_create(&path).unwrap();
        let read = load_or_create(&path).unwrap();
        assert_eq!(made.public(), read.public());
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert!(matches!(create(&path), Err(KeyFileError::Exists(_))));
        assert_eq!(load(&path).unwrap().public(), made.public());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn the_file_is_the_one_of_rfc_8410() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        // RFC 8410 §10.3.
        let example = "-----BEGIN PRIVATE KEY-----\n\
             MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
             -----END PRIVATE KEY-----\n";
        create_private(&path, example.as_bytes()).unwrap();
        let key = load(&path).unwrap();
        let copy = dir.path().join("copy.pem");
        save(&copy, &key).unwrap();
        assert_eq!(fs::read_to_string(&copy).unwrap(), example);
    }

    #[test]
    fn a_file_that_others_may_read_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let message = load(&path).unwrap_err().to_string();
        assert!(message.contains("0640"), "{message}");
        assert!(
            message.contains(&format!("chmod 600 {}", path.display())),
            "{message}"
        );
    }

    #[test]
    fn other_files_are_no_keys() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        create_private(&path, b"hello").unwrap();
        assert!(matches!(load(&path), Err(KeyFileError::Malformed { .. })));
        assert!(matches!(
            load_or_create(&path),
            Err(KeyFileError::Malformed { .. })
        ));
        assert_eq!(fs::read(&path).unwrap(), b"hello");
    }

    #[test]
    fn a_tls_identity_is_made_once_and_its_halves_belong_together() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let made = TlsIdentity::load_or_create(one.path()).unwrap();
        assert_eq!(TlsIdentity::load_or_create(one.path()).unwrap().id, made.id);
        assert_eq!(mode(&one.path().join(KEY_FILE)), 0o600);
        TlsIdentity::load_or_create(two.path()).unwrap();
        fs::copy(one.path().join(CERT_FILE), two.path().join(CERT_FILE)).unwrap();
        let mixed = TlsIdentity::load_or_create(two.path());
        assert!(matches!(mixed, Err(KeyFileError::Mismatch { .. })));
    }

    #[test]
    fn a_crash_between_certificate_and_key_is_mended() {
        let dir = tempfile::tempdir().unwrap();
        let (_, cert, _) = TlsIdentity::generate().unwrap();
        create_private(&dir.path().join(CERT_FILE), cert.as_bytes()).unwrap();
        let made = TlsIdentity::load_or_create(dir.path()).unwrap();
        assert_eq!(TlsIdentity::load(dir.path()).unwrap().id, made.id);
    }
}
