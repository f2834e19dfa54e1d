//! Settings whose value is one of a few words.

use super::value::{Item, Shape, Value};

/// Defines a setting whose value is one of a few words, with the words in one place.
macro_rules! words {
    (
        $(#[$about:meta])*
        $name:ident, $expected:literal { $( $(#[$meaning:meta])* $variant:ident = $word:literal ),+ $(,)? }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $( $(#[$meaning])* $variant ),+
        }

        impl $name {
            /// Returns the word for this value in the configuration.
            pub fn as_str(self) -> &'static str {
                match self {
                    $( Self::$variant => $word ),+
                }
            }
        }

        impl Value for $name {
            const EXPECTED: &'static str = $expected;
            const SHAPE: Shape = Shape::Text;

            fn parse(text: &str) -> Result<Self, String> {
                match text {
                    $( $word => Ok(Self::$variant), )+
                    _ => Err("is not one of the accepted values".to_owned()),
                }
            }

            fn show(&self) -> String {
                self.as_str().to_owned()
            }
        }
    };
}

words! {
    /// What the server is used for. Determines some defaults and which settings are refused.
    Environment, "`development` or `production`" {
        /// One machine, loopback only; protections may be switched off.
        Development = "development",
        /// Real use; no essential setting may be missing.
        Production = "production",
    }
}

words! {
    /// Who migrates the database schema.
    Migrate, "`auto` or `manual`" {
        /// `palisade serve`, when it starts.
        Auto = "auto",
        /// The operator, with `palisade migrate up`.
        Manual = "manual",
    }
}

words! {
    /// The format of access tokens.
    TokenFormat, "`jwt` or `paseto`" {
        /// JWT with the profile of RFC 9068.
        Jwt = "jwt",
        /// PASETO version 4.
        Paseto = "paseto",
    }
}

words! {
    /// A claim about the user in access tokens.
    TokenClaim, "`roles`, `scope`, `email`, `email_verified` or `name`" {
        /// The names of the user's roles.
        Roles = "roles",
        /// The user's permissions.
        Scope = "scope",
        /// The user's email address.
        Email = "email",
        /// Whether the user has verified the email address.
        EmailVerified = "email_verified",
        /// The user's name.
        Name = "name",
    }
}

impl Item for TokenClaim {
    const LIST: &'static str = "a list of `roles`, `scope`, `email`, `email_verified` and `name`";
}

words! {
    /// The signature algorithm of JWT access tokens (RFC 8037, RFC 7518).
    TokenAlgorithm, "`EdDSA` or `ES256`" {
        /// Ed25519.
        EdDsa = "EdDSA",
        /// ECDSA on P-256 with SHA-256.
        Es256 = "ES256",
    }
}

words! {
    /// The purpose of PASETO access tokens.
    Paseto, "`v4.public` or `v4.local`" {
        /// Signed: any holder of the public key can verify it.
        V4Public = "v4.public",
        /// Encrypted: only the server can read it.
        V4Local = "v4.local",
    }
}

words! {
    /// The hash algorithm of new passwords.
    PasswordAlgorithm, "`argon2id` or `bcrypt`" {
        /// Argon2id (RFC 9106).
        Argon2id = "argon2id",
        /// bcrypt.
        Bcrypt = "bcrypt",
    }
}

words! {
    /// How much an Argon2id password hash costs.
    PasswordCost, "`standard`, `light` or `custom`" {
        /// The recommended cost for servers.
        Standard = "standard",
        /// The minimum that OWASP's password storage cheat sheet accepts.
        Light = "light",
        /// As set by the three `passwords.argon2_…` settings.
        Custom = "custom",
    }
}

words! {
    /// Who may register.
    RegistrationMode, "`open` or `closed`" {
        /// Anyone.
        Open = "open",
        /// No one; administrators create accounts.
        Closed = "closed",
    }
}

words! {
    /// Whether a new user must confirm the email address.
    EmailVerification, "`required`, `optional` or `off`" {
        /// An account is created only once its email address is verified.
        Required = "required",
        /// The account is created immediately; verifying the email address is optional.
        Optional = "optional",
        /// No verification is requested.
        Off = "off",
    }
}

words! {
    /// Whether administrators must have a second factor.
    AdminMfa, "`required` or `optional`" {
        /// An administrator without a second factor can only set one up.
        Required = "required",
        /// A second factor is optional.
        Optional = "optional",
    }
}

words! {
    /// What a passkey must prove about the device that created it (WebAuthn level 3, section
    /// 5.4.7).
    Attestation, "`none` or `direct`" {
        /// Nothing.
        None = "none",
        /// That it comes from a manufacturer whose certificate is known.
        Direct = "direct",
    }
}

words! {
    /// The format of the log.
    LogFormat, "`auto`, `pretty` or `json`" {
        /// `pretty` on a terminal, else `json`.
        Auto = "auto",
        /// Human-readable lines.
        Pretty = "pretty",
        /// One JSON object per line.
        Json = "json",
    }
}

words! {
    /// The least severe level that is logged.
    LogLevel, "`error`, `warn`, `info`, `debug` or `trace`" {
        /// Failures.
        Error = "error",
        /// Also events that may lead to a failure.
        Warn = "warn",
        /// Also events of normal operation.
        Info = "info",
        /// Also the details of these events.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}
