#include "resp/wire.h"

const unsigned char wire_kinds[256] = {
    ['+'] = WIRE_TEXT,  ['-'] = WIRE_TEXT, [':'] = WIRE_TEXT,      [','] = WIRE_TEXT,
    ['('] = WIRE_TEXT,  ['#'] = WIRE_TEXT, ['_'] = WIRE_TEXT,      ['$'] = WIRE_BULK,
    ['='] = WIRE_BULK,  ['!'] = WIRE_BULK, ['*'] = WIRE_ARRAY,     ['~'] = WIRE_ARRAY,
    ['>'] = WIRE_ARRAY, ['%'] = WIRE_MAP,  ['|'] = WIRE_ATTRIBUTE,
};
