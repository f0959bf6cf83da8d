/*
 * check.h - what must hold whatever peers, files and kernels do
 *
 * Purpose:    CHECK() states an invariant in every build; DCHECK() one whose cost matters, in
 *             debug and sanitizer builds (NC_DEBUG). OBJ_FROM() recovers a struct from a void *
 *             callback argument and checks its magic number.
 * Errors:     a failed check logs expression, file, line and function, then aborts. Bytes that a
 *             peer can choose, configuration and allocation sizes never reach one.
 */
#ifndef NC_BASE_CHECK_H
#define NC_BASE_CHECK_H

#define NC_MUST_CHECK __attribute__((warn_unused_result))
#define NC_PRINTF(format_index, first_index)                                                       \
    __attribute__((format(printf, format_index, first_index)))
#define NC_LIKELY(cond) __builtin_expect(!!(cond), 1)
#define NC_UNLIKELY(cond) __builtin_expect(!!(cond), 0)

_Noreturn void check_failed(const char *expression, const char *file, int line,
                            const char *function);

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (NC_UNLIKELY(!(cond))) {                                                                \
            check_failed(#cond, __FILE__, __LINE__, __func__);                                     \
        }                                                                                          \
    } while (0)

#ifdef NC_DEBUG
#define DCHECK(cond) CHECK(cond)
#else
#define DCHECK(cond) ((void)sizeof(cond))
#endif

/* The struct behind arg, whose first field is `uint32_t magic`. */
#define OBJ_FROM(arg, type, expected_magic)                                                        \
    __extension__({                                                                                \
        type *obj_ = (arg);                                                                        \
        CHECK(obj_ != NULL && obj_->magic == (expected_magic));                                    \
        obj_;                                                                                      \
    })

/* The struct that embeds `field` at address ptr. */
#define CONTAINER_OF(ptr, type, field) ((type *)(void *)((char *)(ptr)-offsetof(type, field)))

#endif
