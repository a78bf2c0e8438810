//! Keys of issuers, made anew for every run, and tokens signed with them: good ones and all others.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::{Value, json};

/// A shared secret that is long enough.
pub const SECRET: &str = "a secret of the tests, long enough to be one";

/// A key of an issuer.
pub struct IssuerKey {
    pub algorithm: Algorithm,
    pub kid: String,
    private: EncodingKey,
    public: Vec<u8>,
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

impl IssuerKey {
    /// A new one.
    pub fn new(algorithm: Algorithm, kid: &str) -> IssuerKey {
        let random = SystemRandom::new();
        let (private, public) = match algorithm {
            Algorithm::RS256 | Algorithm::PS256 => rsa(KeySize::Rsa2048),
            Algorithm::ES256 | Algorithm::ES384 => {
                let kind = match algorithm {
                    Algorithm::ES256 => &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
                    _ => &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
                };
                let document = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
                let pair = EcdsaKeyPair::from_pkcs8(kind, document.as_ref()).unwrap();
                let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
                (EncodingKey::from_ec_der(document.as_ref()), public.as_ref().to_vec())
            }
            Algorithm::EdDSA => {
                let document = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
                let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
                let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
                (EncodingKey::from_ed_der(document.as_ref()), public.as_ref().to_vec())
            }
            other => panic!("no issuer signs with {other:?}"),
        };
        IssuerKey { algorithm, kid: kid.to_owned(), private, public }
    }

    /// The public key as PEM.
    #[allow(dead_code)]
    pub fn pem(&self) -> String {
        pem("PUBLIC KEY", &self.public)
    }

    /// The public key as the JWKS has it.
    pub fn jwk(&self) -> Value {
        if self.algorithm == Algorithm::EdDSA {
            // the end of what the PEM has is the key itself
            let x = URL_SAFE_NO_PAD.encode(&self.public[self.public.len() - 32..]);
            return json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": self.kid, "alg": "EdDSA", "use": "sig" });
        }
        let mut jwk = Jwk::from_encoding_key(&self.private, self.algorithm).unwrap();
        jwk.common.key_id = Some(self.kid.clone());
        serde_json::to_value(jwk).unwrap()
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &Value) -> String {
        let name = format!("{:?}", self.algorithm);
        self.sign_as(&json!({ "typ": "JWT", "alg": name, "kid": self.kid }), claims)
    }

    /// A token with this header, signed as the key's algorithm does, whatever the header says.
    pub fn sign_as(&self, header: &Value, claims: &Value) -> String {
        signed(header, claims, &self.private, self.algorithm)
    }
}

fn rsa(size: KeySize) -> (EncodingKey, Vec<u8>) {
    let pair = RsaKeyPair::generate(size).unwrap();
    let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let private = EncodingKey::from_rsa_pem(pem("PRIVATE KEY", private.as_ref()).as_bytes()).unwrap();
    (private, public.as_ref().to_vec())
}

fn signed(header: &Value, claims: &Value, key: &EncodingKey, algorithm: Algorithm) -> String {
    let message = unsigned(header, claims);
    let signature = crypto::sign(message.as_bytes(), key, algorithm).unwrap();
    format!("{message}.{signature}")
}

/// Header and claims, not signed.
pub fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()))
}

/// A token signed with a shared secret.
pub fn shared(secret: &[u8], algorithm: Algorithm, claims: &Value) -> String {
    let header = json!({ "typ": "JWT", "alg": format!("{algorithm:?}") });
    shared_as(secret, algorithm, &header, claims)
}

/// The same with this header.
pub fn shared_as(secret: &[u8], algorithm: Algorithm, header: &Value, claims: &Value) -> String {
    signed(header, claims, &EncodingKey::from_secret(secret), algorithm)
}

/// Seconds since 1970.
pub fn now() -> i64 {
    i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// Claims that are good for so many seconds.
pub fn claims(seconds: i64) -> Value {
    json!({ "sub": "ann", "role": "player", "exp": now() + seconds })
}

/// A good token by [`SECRET`], for so many seconds.
pub fn token(seconds: i64) -> String {
    shared(SECRET.as_bytes(), Algorithm::HS256, &claims(seconds))
}
