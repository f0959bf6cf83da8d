# Redis's tests/test_helper.tcl, with one thing more: after a test that failed the connection that
# the tests share is a new one. Otherwise a MULTI that a failed test left open would fail all
# that follow it, and one failure would hide the rest.

proc isolate_failures {} {
    rename test test_as_it_is
    proc test {args} {
        set before $::num_failed
        uplevel 1 [list test_as_it_is {*}$args]
        if {$::num_failed > $before && [llength $::servers] > 0} {
            catch {reconnect}
        }
    }
}

set helper [open tests/test_helper.tcl]
set program [read $helper]
close $helper
set last_source "source tests/support/util.tcl\n"
if {[string first $last_source $program] < 0} {
    error "tests/test_helper.tcl does not look as expected"
}
eval [string map [list $last_source "${last_source}isolate_failures\n"] $program]
