/*
 * Both forms of the page are put into the object by the assembler, which needs no other tool than
 * the compiler; the Makefile compresses the second one. The policy names the script and the style
 * by their hashes, found out when first asked: it cannot fall behind the file.
 */
#include "admin/page.h"

#include <event2/buffer.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <xxhash.h>

#include "base/check.h"

#define EMBED(name, file)                                                                          \
    __asm__(".section .rodata\n.balign 16\n" #name ":\n.incbin \"" file "\"\n" #name               \
            "_end:\n.byte 0\n.previous\n");                                                        \
    extern const unsigned char name[], name##_end[]

EMBED(page_plain, PAGE_PLAIN);
EMBED(page_packed, PAGE_PACKED);

/* "sha256-", 44 characters of base64, and the quotes */
#define SOURCE_MAX 64

static struct {
    char policy[512];
    char tag[24], packed_tag[24];
} known;

/* Of what stands between the first <name> and its end. */
static void source_of(const char *name, char out[SOURCE_MAX])
{
    const char *page = (const char *)page_plain;
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned char text[48];
    char tag[16];
    const char *begin, *end;
    unsigned n = 0;

    (void)snprintf(tag, sizeof(tag), "<%s>", name);
    begin = strstr(page, tag);
    CHECK(begin != NULL);
    begin += strlen(tag);
    (void)snprintf(tag, sizeof(tag), "</%s>", name);
    end = strstr(begin, tag);
    CHECK(end != NULL);
    CHECK(EVP_Digest(begin, (size_t)(end - begin), digest, &n, EVP_sha256(), NULL) == 1);
    (void)EVP_EncodeBlock(text, digest, (int)n);
    (void)snprintf(out, SOURCE_MAX, "'sha256-%s'", (const char *)text);
}

static void know(void)
{
    char script[SOURCE_MAX], style[SOURCE_MAX];

    if (known.tag[0] != '\0') {
        return;
    }
    source_of("script", script);
    source_of("style", style);
    (void)snprintf(known.policy, sizeof(known.policy),
                   "default-src 'none'; script-src %s; style-src %s; img-src data:; "
                   "connect-src 'self'; base-uri 'none'; form-action 'none'; "
                   "frame-ancestors 'none'",
                   script, style);
    const uint64_t hash = XXH64(page_plain, (size_t)(page_plain_end - page_plain), 0);
    (void)snprintf(known.tag, sizeof(known.tag), "\"%016" PRIx64 "\"", hash);
    (void)snprintf(known.packed_tag, sizeof(known.packed_tag), "\"%016" PRIx64 "-z\"", hash);
}

/* A list of words; weights are not looked at, but for gzip;q=0, which says no. */
static bool takes_gzip(struct evhttp_request *request)
{
    const char *header = evhttp_find_header(evhttp_request_get_input_headers(request),
                                            "Accept-Encoding");
    const char *found = header != NULL ? strcasestr(header, "gzip") : NULL;

    return found != NULL && strncasecmp(found, "gzip;q=0", 8) != 0;
}

static void add_headers(struct evhttp_request *request, bool is_packed)
{
    struct evkeyvalq *headers = evhttp_request_get_output_headers(request);

    evhttp_add_header(headers, "Content-Type", "text/html; charset=utf-8");
    evhttp_add_header(headers, "Cache-Control", "no-cache");
    evhttp_add_header(headers, "ETag", is_packed ? known.packed_tag : known.tag);
    evhttp_add_header(headers, "Vary", "Accept-Encoding");
    evhttp_add_header(headers, "Content-Security-Policy", known.policy);
    evhttp_add_header(headers, "X-Content-Type-Options", "nosniff");
    evhttp_add_header(headers, "X-Frame-Options", "DENY");
    evhttp_add_header(headers, "Referrer-Policy", "no-referrer");
    evhttp_add_header(headers, "Cross-Origin-Opener-Policy", "same-origin");
    evhttp_add_header(headers, "Cross-Origin-Resource-Policy", "same-origin");
}

static void reply(struct evhttp_request *request, const unsigned char *page, size_t len,
                  bool is_packed)
{
    struct evkeyvalq *headers = evhttp_request_get_output_headers(request);
    struct evbuffer *body = evbuffer_new();
    char digits[24];

    CHECK(body != NULL);
    if (is_packed) {
        evhttp_add_header(headers, "Content-Encoding", "gzip");
    }
    (void)snprintf(digits, sizeof(digits), "%zu", len);
    evhttp_add_header(headers, "Content-Length", digits);
    if (evhttp_request_get_command(request) != EVHTTP_REQ_HEAD) {
        evbuffer_add_reference(body, page, len, NULL, NULL);
    }
    evhttp_send_reply(request, HTTP_OK, "OK", body);
    evbuffer_free(body);
}

void page_answer(struct evhttp_request *request)
{
    const bool is_packed = takes_gzip(request);
    const char *held = evhttp_find_header(evhttp_request_get_input_headers(request),
                                          "If-None-Match");

    know();
    add_headers(request, is_packed);
    if (held != NULL && strstr(held, is_packed ? known.packed_tag : known.tag) != NULL) {
        evhttp_send_reply(request, HTTP_NOTMODIFIED, "Not Modified", NULL);
    } else if (is_packed) {
        reply(request, page_packed, (size_t)(page_packed_end - page_packed), true);
    } else {
        reply(request, page_plain, (size_t)(page_plain_end - page_plain), false);
    }
}
