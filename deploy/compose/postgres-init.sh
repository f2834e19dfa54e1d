#!/bin/bash
# Creates the roles, the database and the schema when PostgreSQL starts for the first time: palisade_owner owns the tables
# and applies migrations, and palisade, the role of the server, may only read and write rows.
set -euo pipefail
psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres <<'SQL'
\set owner `cat /run/secrets/postgres-owner-password`
\set server `cat /run/secrets/postgres-server-password`
create role palisade_owner login password :'owner';
create role palisade login password :'server';
create database palisade owner palisade_owner encoding 'UTF8' locale 'C' template template0;
revoke all on database palisade from public;
grant connect on database palisade to palisade;
\connect palisade
create schema palisade authorization palisade_owner;
grant usage on schema palisade to palisade;
alter default privileges for role palisade_owner in schema palisade
    grant select, insert, update, delete on tables to palisade;
alter default privileges for role palisade_owner in schema palisade
    grant usage, update on sequences to palisade;
SQL
