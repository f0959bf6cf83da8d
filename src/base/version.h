/*
 * version.h - the version, read here by the program and by the Makefile
 */
#ifndef NC_BASE_VERSION_H
#define NC_BASE_VERSION_H

#define NC_VERSION "0.1.0"

#endif
