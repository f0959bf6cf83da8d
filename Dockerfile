# nearcached in a container:
#
#   docker build -t nearcached .
#   docker run -p 127.0.0.1:6380:6380 -e NEARCACHED_BACKEND=redis://redis:6379 nearcached
#
# In here both listeners are open to the container's network, not to loopback only. Who can reach
# the container can read what is cached: publish the ports to trusted networks, and set
# NEARCACHED_REQUIREPASS, better from a secret.

FROM debian:12-slim AS build
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends make
WORKDIR /src
COPY scripts/install-deps.sh scripts/
RUN scripts/install-deps.sh build
COPY . .
RUN make -j"$(nproc)" && make install PREFIX=/usr DESTDIR=/stage

FROM debian:12-slim
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends \
        ca-certificates libevent-2.1-7 libhiredis0.14 libinih1 libjansson4 libjemalloc2 \
        libncursesw6 libssl3 libsystemd0 libxxhash0 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 638 nearcached \
    && useradd --system --uid 638 --gid 638 --no-create-home --shell /usr/sbin/nologin nearcached
COPY --from=build /stage/usr/bin/nearcached /stage/usr/bin/nearcached-top /usr/bin/
COPY --from=build /stage/etc/nearcached /etc/nearcached
# By number: Kubernetes cannot tell that a name is not root's (runAsNonRoot).
USER 638:638
# The environment stands above the file: what is set here holds until -e says otherwise.
ENV NEARCACHED_LISTEN=*:6380 NEARCACHED_ADMIN=*:9380
EXPOSE 6380 9380
STOPSIGNAL SIGTERM
# Alive, not ready: a backend that is away is no reason to restart the proxy.
HEALTHCHECK --interval=10s --timeout=2s --start-period=5s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/9380 && printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' >&3 && read -r _ status _ <&3 && [ \"$status\" = 200 ]"]
ENTRYPOINT ["/usr/bin/nearcached", "--config", "/etc/nearcached/nearcached.conf"]
