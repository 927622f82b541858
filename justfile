# The everyday commands: `just` lists them, `just NAME` runs one. Each is a command that works
# without just as well. Install it with `cargo install just`, `pip install rust-just` or a package.

# List the recipes
default:
    @{{ just_executable() }} --list --unsorted

# Start prop on a SQLite database of its own, or run another of its commands: just run key list
run *arguments:
    cargo run -- {{ arguments }}

# Run the tests of the given parts (lint, app, infra, browser); of every part when none is given
test *parts:
    ./scripts/test.sh {{ parts }}

# Run the API tests whose name contains NAME
api name="":
    cargo test --test api -- {{ name }}

# Check format, lints, spelling, dependencies, Dockerfile and workflows
lint:
    ./scripts/test.sh lint

# Format the Rust code
fmt:
    cargo fmt

# Open the documentation of the code, private items included
docs:
    cargo doc --no-deps --document-private-items --open

# Write docs/openapi.json, the committed OpenAPI document
openapi:
    cargo run --quiet -- openapi > docs/openapi.json

# Fill the running ledger with a week of history (PROP_KEY=... first)
demo url="http://127.0.0.1:8080":
    ./scripts/demo.sh {{ url }}

# Measure throughput and latency with the release build
bench:
    ./scripts/bench.sh

# Start prop with PostgreSQL in containers
up:
    docker compose -f docker/compose.yaml up

# Show what Terraform would change: just stack-plan staging
stack-plan environment:
    ./scripts/infra.sh {{ environment }} plan

# Print what an environment costs per month
stack-cost environment="staging":
    ./scripts/cost.sh {{ environment }}

# Show what runs in an environment, and whether AWS and the ledger agree
status environment:
    ./scripts/status.sh {{ environment }}

# Check dependencies and files for vulnerabilities and licences, as the pipeline does
scan:
    ./scripts/scan.sh files
