//! Signs tokens with the shared secret: for development, and for tests.
//!
//! Must not know: who asks for it. Invariant: what is signed here is taken by a gateway with the same settings.

use super::fault::AuthError;
use super::key::Key;
use super::secret::Secret;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value};

/// A token with these claims, HS256.
///
/// # Errors
/// The secret is short.
pub fn sign(secret: &Secret, claims: &Map<String, Value>) -> Result<String, AuthError> {
    Key::shared(secret)?;
    let key = EncodingKey::from_secret(secret.expose().as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).map_err(|e| AuthError::Sign(e.to_string()))
}

/// Puts the role where `path` says: into the claim of that name, or into the objects it leads through.
///
/// # Errors
/// There is no room for it: another claim stands in the way.
pub fn put_role(claims: &mut Map<String, Value>, path: &str, role: &str) -> Result<(), AuthError> {
    let inside = |path: &str| path.contains("://");
    match path.split_once('.').filter(|_| !inside(path)) {
        None => _ = claims.insert(path.to_owned(), role.into()),
        Some((first, rest)) => {
            let inner = claims.entry(first).or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(inner) = inner else { return Err(AuthError::RoleClaim) };
            put_role(inner, rest, role)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_role_is_put_where_it_is_looked_for() {
        let mut claims = Map::new();
        put_role(&mut claims, "role", "a").unwrap();
        put_role(&mut claims, "app_metadata.more.role", "b").unwrap();
        put_role(&mut claims, "https://example.com/role", "c").unwrap();
        let wanted = json!({"role": "a", "app_metadata": {"more": {"role": "b"}}, "https://example.com/role": "c"});
        assert_eq!(Value::Object(claims.clone()), wanted);
        assert!(put_role(&mut claims, "role.name", "d").is_err());
    }
}
