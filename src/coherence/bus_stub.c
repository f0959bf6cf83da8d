/* Stands in for the bus until it is there: nobody is told, nobody is heard of. */
#include "coherence/bus.h"

void bus_send(struct bus *bus, struct coherence *from, const struct bus_record *record)
{
    (void)bus, (void)from, (void)record;
}

unsigned bus_count_peers(const struct bus *bus)
{
    (void)bus;
    return 0;
}
