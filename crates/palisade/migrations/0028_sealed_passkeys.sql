alter table passkeys rename column public_key to sealed;
