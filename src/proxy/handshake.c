#include "proxy/handshake.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/stats.h"

/* At 0.3 ms each: what others wait for when a thousand clients come at once. */
#define PER_TURN 8

static void on_turn_end(struct deferred *deferred)
{
    CONTAINER_OF(deferred, struct front, handshakes_end)->n_handshakes = 0;
}

void handshake_init(struct front *front)
{
    front->handshakes_end.run = on_turn_end;
}

bool handshake_may_go_on(struct session *session)
{
    struct front *front = session->front;

    if (front->n_handshakes == PER_TURN) {
        /* Who waits to read is told by the socket. */
        if (stream_wants_write(&session->stream)) {
            event_add(&session->write_event, NULL);
        }
        return false;
    }
    front->n_handshakes++;
    worker_defer(&front->worker, &front->handshakes_end);
    return true;
}

static void tell(const struct session *session, const char *reason)
{
    static _Thread_local struct log_limit limit;
    unsigned suppressed;

    if (log_limit_pass(&limit, clock_now_ms(), &suppressed)) {
        log_warn("proxy", "TLS handshake failed", "client=%s listener=%s reason=%s suppressed=%u",
                 session->peer.text, session->local.text, log_quote_long(bytes_of_string(reason)),
                 suppressed);
    }
}

void handshake_failed(const struct session *session, int error)
{
    const char *reason = stream_error(&session->stream, error);

    if (stream_is_in_handshake(&session->stream)) {
        tell(session, reason);
    } else if (session->stream.tls != NULL) {
        log_debug("proxy", "TLS connection lost", "client=%s reason=%s", session->peer.text,
                  log_quote_long(bytes_of_string(reason)));
    }
}

bool handshake_check_time(struct session *session, int64_t now_us)
{
    if (!stream_is_in_handshake(&session->stream) ||
        now_us - session->opened_at_us <= session->front->config->tls_handshake_timeout_ms * 1000) {
        return false;
    }
    stats_add(METRIC_tls_client_failed, 1);
    stats_add(METRIC_clients_closed_handshake, 1);
    tell(session, "not completed within tls-handshake-timeout");
    session_close(session);
    return true;
}
