# The gateway alone; Postgres is somewhere else. See docker-compose.yml for both.
FROM rust:1-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin rowcast && cp target/release/rowcast /rowcast

FROM debian:bookworm-slim
# to know the issuer of tokens when its keys are fetched (`ROWCAST_JWKS_URL`)
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
RUN useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin rowcast
COPY --from=build /rowcast /usr/local/bin/rowcast
USER 10001:10001
ENV ROWCAST_LISTEN=0.0.0.0:8080
EXPOSE 8080
# /readyz, because a gateway that cannot see its database should get no new clients. bash speaks TCP; no curl needed.
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 CMD ["bash", "-c", \
    "exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET /readyz HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && read -r _ status _ <&3 && [ \"$status\" = 200 ]"]
# SIGTERM lets streams say good-bye.
ENTRYPOINT ["rowcast"]
CMD ["serve"]
