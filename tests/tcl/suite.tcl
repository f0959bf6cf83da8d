# Redis's tests/test_helper.tcl, with two things more, so that one failure does not hide the rest:
#
# - Each test says when it begins. Who reads the output knows then which one hangs.
# - After a test that failed no script runs, the connection that the tests share is a new one, clients
#   are not paused, and memory is not limited. Otherwise an endless script, a MULTI, a CLIENT PAUSE or
#   a full server that the failed test left behind would fail all that follow.

proc kill_scripts {} {
    set killer [redis [srv 0 host] [srv 0 port] 0 $::tls]
    catch {$killer script kill}
    catch {$killer function kill}
    $killer close
}

proc isolate_failures {} {
    rename test test_as_it_is
    proc test {args} {
        puts "\[testing\]: [lindex $args 0]"
        set before $::num_failed
        uplevel 1 [list test_as_it_is {*}$args]
        if {$::num_failed > $before && [llength $::servers] > 0} {
            catch {kill_scripts}
            catch {reconnect}
            catch {r client unpause}
            catch {r config set maxmemory 0}
        }
    }
}

fconfigure stdout -buffering line
set helper [open tests/test_helper.tcl]
set program [read $helper]
close $helper
set last_source "source tests/support/util.tcl\n"
if {[string first $last_source $program] < 0} {
    error "tests/test_helper.tcl does not look as expected"
}
eval [string map [list $last_source "${last_source}isolate_failures\n"] $program]
