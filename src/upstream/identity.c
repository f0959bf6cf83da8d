#include "upstream/identity.h"

#include "base/mem.h"

#include <pthread.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct identity *registry; /* lock; newest first */
static unsigned n_identities;     /* lock */

static char *copy_text(struct bytes text)
{
    char *copy = mem_alloc(text.len + 1);

    if (text.len > 0) {
        memcpy(copy, text.ptr, text.len);
    }
    copy[text.len] = '\0';
    return copy;
}

struct identity *identity_new(struct bytes user, struct bytes password)
{
    struct identity *identity = mem_alloc(sizeof(*identity));

    identity->login.user = user.len > 0 ? copy_text(user) : NULL;
    identity->login.password = copy_text(password);
    identity->name = user.len > 0 ? identity->login.user : "default";
    return identity;
}

void identity_free(struct identity **candidate)
{
    struct identity *gone = *candidate;

    *candidate = NULL;
    if (gone == NULL) {
        return;
    }
    explicit_bzero(gone->login.password, strlen(gone->login.password));
    config_backend_fini(&gone->login);
    mem_free(gone);
}

static struct identity *find_locked(const struct identity *candidate)
{
    struct identity *identity = registry;

    while (identity != NULL && strcmp(identity->name, candidate->name) != 0) {
        identity = identity->next;
    }
    return identity;
}

void identity_lock(void)
{
    pthread_mutex_lock(&lock);
}

void identity_unlock(void)
{
    pthread_mutex_unlock(&lock);
}

struct identity *identity_register(struct identity **candidate)
{
    struct identity *identity;

    pthread_mutex_lock(&lock);
    identity = find_locked(*candidate);
    if (identity != NULL) {
        char *const former = identity->login.password;

        identity->login.password = (*candidate)->login.password;
        (*candidate)->login.password = former;
    } else if (n_identities < IDENTITIES_MAX) {
        identity = *candidate;
        *candidate = NULL;
        identity->number = ++n_identities;
        identity->next = registry;
        registry = identity;
    }
    pthread_mutex_unlock(&lock);
    identity_free(candidate);
    return identity;
}

bool identity_has_name(struct bytes name)
{
    const struct identity *identity;

    pthread_mutex_lock(&lock);
    identity = registry;
    while (identity != NULL && !bytes_equal(bytes_of_string(identity->name), name)) {
        identity = identity->next;
    }
    pthread_mutex_unlock(&lock);
    return identity != NULL;
}

unsigned identity_count(void)
{
    unsigned n;

    pthread_mutex_lock(&lock);
    n = n_identities;
    pthread_mutex_unlock(&lock);
    return n;
}
