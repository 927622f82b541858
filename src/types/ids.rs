//! The identifiers of rows. `db::columns` lists them too: it says how they are stored.

/// Declares the identifier type of one kind of row: a UUIDv7 (RFC 9562), so that identifiers sort
/// by the time of their creation. The doc comment is also the description in the OpenAPI document.
macro_rules! identifier {
    ($(#[doc = $doc:literal])+ $name:ident) => {
        $(#[doc = $doc])+
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash,
            serde::Serialize, serde::Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(uuid::Uuid);

        impl $name {
            /// Creates a new, unique identifier.
            #[allow(clippy::new_without_default, reason = "every new identifier is another one")]
            pub fn new() -> Self {
                Self(uuid::Uuid::now_v7())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<uuid::Uuid> for $name {
            fn from(id: uuid::Uuid) -> Self {
                Self(id)
            }
        }

        impl From<$name> for uuid::Uuid {
            fn from(id: $name) -> uuid::Uuid {
                id.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                text.parse().map(Self)
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                use utoipa::openapi::schema::{ObjectBuilder, SchemaFormat, Type};
                let format = SchemaFormat::Custom("uuid".into());
                let description = concat!($($doc),+).trim();
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .format(Some(format))
                    .description(Some(description))
                    .build()
                    .into()
            }
        }
        impl utoipa::ToSchema for $name {}
    };
}

identifier! {
    /// The identifier of a release (UUIDv7).
    ReleaseId
}

identifier! {
    /// The identifier of a deployment (UUIDv7).
    DeploymentId
}

identifier! {
    /// The identifier of an approval (UUIDv7).
    ApprovalId
}

identifier! {
    /// The identifier of a freeze (UUIDv7).
    FreezeId
}

identifier! {
    /// The identifier of a freeze override (UUIDv7).
    OverrideId
}

identifier! {
    /// The identifier of an incident (UUIDv7).
    IncidentId
}

identifier! {
    /// The identifier of a key (UUIDv7). It is not secret.
    KeyId
}
