"""Data types of ISO 15118-2:2014 (namespace MsgDataTypes): enumerations, simple types, and the
types that messages are made of.

Several types are abstract and exist for their element, which a DC or an AC variant replaces:
EVStatus, EVSEStatus, EVChargeParameter, EVSEChargeParameter, EVPowerDeliveryParameter,
SASchedules, Entry, TimeInterval. Lengths of binary types are octets.
"""

from __future__ import annotations

from enum import StrEnum

from v2g.exi.schema import (
    ComplexType,
    Namespace,
    attribute,
    choice,
    element,
    elements,
    ref,
    text,
)
from v2g.exi.simple import (
    BOOLEAN,
    BYTE,
    ID,
    INT,
    LONG,
    SHORT,
    STRING,
    UNSIGNED_BYTE,
    UNSIGNED_INT,
    UNSIGNED_LONG,
    UNSIGNED_SHORT,
    Binary,
    Enumeration,
    Integer,
    String,
)
from v2g.messages import xmldsig

MSG_DATA_TYPES = Namespace(
    "urn:iso:15118:2:2013:MsgDataTypes", "v2gci_t", attributes_qualified=True
)

_simple = MSG_DATA_TYPES.simple

# Enumerations, in the schema's order: the order is the coding ----------------------------------


class ResponseCode(StrEnum):
    OK = "OK"
    OK_NewSessionEstablished = "OK_NewSessionEstablished"
    OK_OldSessionJoined = "OK_OldSessionJoined"
    OK_CertificateExpiresSoon = "OK_CertificateExpiresSoon"
    FAILED = "FAILED"
    FAILED_SequenceError = "FAILED_SequenceError"
    FAILED_ServiceIDInvalid = "FAILED_ServiceIDInvalid"
    FAILED_UnknownSession = "FAILED_UnknownSession"
    FAILED_ServiceSelectionInvalid = "FAILED_ServiceSelectionInvalid"
    FAILED_PaymentSelectionInvalid = "FAILED_PaymentSelectionInvalid"
    FAILED_CertificateExpired = "FAILED_CertificateExpired"
    FAILED_SignatureError = "FAILED_SignatureError"
    FAILED_NoCertificateAvailable = "FAILED_NoCertificateAvailable"
    FAILED_CertChainError = "FAILED_CertChainError"
    FAILED_ChallengeInvalid = "FAILED_ChallengeInvalid"
    FAILED_ContractCanceled = "FAILED_ContractCanceled"
    FAILED_WrongChargeParameter = "FAILED_WrongChargeParameter"
    FAILED_PowerDeliveryNotApplied = "FAILED_PowerDeliveryNotApplied"
    FAILED_TariffSelectionInvalid = "FAILED_TariffSelectionInvalid"
    FAILED_ChargingProfileInvalid = "FAILED_ChargingProfileInvalid"
    FAILED_MeteringSignatureNotValid = "FAILED_MeteringSignatureNotValid"
    FAILED_NoChargeServiceSelected = "FAILED_NoChargeServiceSelected"
    FAILED_WrongEnergyTransferMode = "FAILED_WrongEnergyTransferMode"
    FAILED_ContactorError = "FAILED_ContactorError"
    FAILED_CertificateNotAllowedAtThisEVSE = "FAILED_CertificateNotAllowedAtThisEVSE"
    FAILED_CertificateRevoked = "FAILED_CertificateRevoked"


class FaultCode(StrEnum):
    ParsingError = "ParsingError"
    NoTLSRootCertificatAvailable = "NoTLSRootCertificatAvailable"
    UnknownError = "UnknownError"


class EVSEProcessing(StrEnum):
    Finished = "Finished"
    Ongoing = "Ongoing"
    Ongoing_WaitingForCustomerInteraction = "Ongoing_WaitingForCustomerInteraction"


class EVSENotification(StrEnum):
    None_ = "None"
    StopCharging = "StopCharging"
    ReNegotiation = "ReNegotiation"


class ChargeProgress(StrEnum):
    Start = "Start"
    Stop = "Stop"
    Renegotiate = "Renegotiate"


class ChargingSession(StrEnum):
    Terminate = "Terminate"
    Pause = "Pause"


class ServiceCategory(StrEnum):
    EVCharging = "EVCharging"
    Internet = "Internet"
    ContractCertificate = "ContractCertificate"
    OtherCustom = "OtherCustom"


class PaymentOption(StrEnum):
    Contract = "Contract"
    ExternalPayment = "ExternalPayment"


class EnergyTransferMode(StrEnum):
    AC_single_phase_core = "AC_single_phase_core"
    AC_three_phase_core = "AC_three_phase_core"
    DC_core = "DC_core"
    DC_extended = "DC_extended"
    DC_combo_core = "DC_combo_core"
    DC_unique = "DC_unique"


class CostKind(StrEnum):
    relativePricePercentage = "relativePricePercentage"
    RenewableGenerationPercentage = "RenewableGenerationPercentage"
    CarbonDioxideEmission = "CarbonDioxideEmission"


class UnitSymbol(StrEnum):
    """Hours, minutes, seconds, ampere, volt, watt, watt hours."""

    h = "h"
    m = "m"
    s = "s"
    A = "A"
    V = "V"
    W = "W"
    Wh = "Wh"


class DC_EVSEStatusCode(StrEnum):
    EVSE_NotReady = "EVSE_NotReady"
    EVSE_Ready = "EVSE_Ready"
    EVSE_Shutdown = "EVSE_Shutdown"
    EVSE_UtilityInterruptEvent = "EVSE_UtilityInterruptEvent"
    EVSE_IsolationMonitoringActive = "EVSE_IsolationMonitoringActive"
    EVSE_EmergencyShutdown = "EVSE_EmergencyShutdown"
    EVSE_Malfunction = "EVSE_Malfunction"
    Reserved_8 = "Reserved_8"
    Reserved_9 = "Reserved_9"
    Reserved_A = "Reserved_A"
    Reserved_B = "Reserved_B"
    Reserved_C = "Reserved_C"


class IsolationLevel(StrEnum):
    Invalid = "Invalid"
    Valid = "Valid"
    Warning = "Warning"
    Fault = "Fault"
    No_IMD = "No_IMD"


class DC_EVErrorCode(StrEnum):
    NO_ERROR = "NO_ERROR"
    FAILED_RESSTemperatureInhibit = "FAILED_RESSTemperatureInhibit"
    FAILED_EVShiftPosition = "FAILED_EVShiftPosition"
    FAILED_ChargerConnectorLockFault = "FAILED_ChargerConnectorLockFault"
    FAILED_EVRESSMalfunction = "FAILED_EVRESSMalfunction"
    FAILED_ChargingCurrentdifferential = "FAILED_ChargingCurrentdifferential"
    FAILED_ChargingVoltageOutOfRange = "FAILED_ChargingVoltageOutOfRange"
    Reserved_A = "Reserved_A"
    Reserved_B = "Reserved_B"
    Reserved_C = "Reserved_C"
    FAILED_ChargingSystemIncompatibility = "FAILED_ChargingSystemIncompatibility"
    NoData = "NoData"


class ValueKind(StrEnum):
    """valueType, which the schema declares and does not use."""

    bool = "bool"
    byte = "byte"
    short = "short"
    int = "int"
    physicalValue = "physicalValue"
    string = "string"


response_code = _simple(Enumeration("responseCodeType", ResponseCode))
fault_code = _simple(Enumeration("faultCodeType", FaultCode))
evse_processing = _simple(Enumeration("EVSEProcessingType", EVSEProcessing))
evse_notification = _simple(Enumeration("EVSENotificationType", EVSENotification))
charge_progress = _simple(Enumeration("chargeProgressType", ChargeProgress))
charging_session = _simple(Enumeration("chargingSessionType", ChargingSession))
service_category = _simple(Enumeration("serviceCategoryType", ServiceCategory))
payment_option = _simple(Enumeration("paymentOptionType", PaymentOption))
energy_transfer_mode = _simple(Enumeration("EnergyTransferModeType", EnergyTransferMode))
cost_kind = _simple(Enumeration("costKindType", CostKind))
unit_symbol = _simple(Enumeration("unitSymbolType", UnitSymbol))
dc_evse_status_code = _simple(Enumeration("DC_EVSEStatusCodeType", DC_EVSEStatusCode))
isolation_level = _simple(Enumeration("isolationLevelType", IsolationLevel))
dc_ev_error_code = _simple(Enumeration("DC_EVErrorCodeType", DC_EVErrorCode))
_simple(Enumeration("valueType", ValueKind))

# Numbers and names ------------------------------------------------------------------------------

percent_value = _simple(Integer("percentValueType", low=0, high=100))
unit_multiplier = _simple(Integer("unitMultiplierType", low=-3, high=3))
max_num_phases = _simple(Integer("maxNumPhasesType", low=1, high=3))
meter_status = _simple(Integer("meterStatusType", low=SHORT.low, high=SHORT.high))
service_id = _simple(Integer("serviceIDType", low=0, high=UNSIGNED_SHORT.high))
said = _simple(Integer("SAIDType", low=1, high=255))

fault_msg = _simple(String("faultMsgType", max_length=64))
service_name = _simple(String("serviceNameType", max_length=32))
service_scope = _simple(String("serviceScopeType", max_length=64))
tariff_description = _simple(String("tariffDescriptionType", max_length=32))
meter_id = _simple(String("meterIDType", max_length=32))
evse_id = _simple(String("evseIDType", min_length=7, max_length=37))
emaid = _simple(String("eMAIDType", min_length=14, max_length=15))

session_id = _simple(Binary("sessionIDType", hexadecimal=True, max_length=8))
evcc_id = _simple(Binary("evccIDType", hexadecimal=True, max_length=6))
gen_challenge = _simple(Binary("genChallengeType", min_length=16, max_length=16))
certificate = _simple(Binary("certificateType", max_length=800))
dh_publickey = _simple(Binary("dHpublickeyType", max_length=65))
private_key = _simple(Binary("privateKeyType", max_length=48))
sig_meter_reading = _simple(Binary("sigMeterReadingType", max_length=64))


class DataType(ComplexType, ns=MSG_DATA_TYPES, declared=False):
    """Base of the classes of this namespace; not a type of the schema."""


class PhysicalValue(DataType):
    """Value times ten to the power of Multiplier, in Unit."""

    Multiplier: int = element(unit_multiplier)
    Unit: UnitSymbol = element(unit_symbol)
    Value: int = element(SHORT)


class Notification(DataType):
    FaultCode: FaultCode = element(fault_code)
    FaultMsg: str | None = element(fault_msg, default=None)


# Services ---------------------------------------------------------------------------------------


class Service(DataType):
    ServiceID: int = element(service_id)
    ServiceName: str | None = element(service_name, default=None)
    ServiceCategory: ServiceCategory = element(service_category)
    ServiceScope: str | None = element(service_scope, default=None)
    FreeService: bool = element(BOOLEAN)


class ServiceList(DataType):
    Service: tuple[Service, ...] = elements(Service, max=8)


class SupportedEnergyTransferMode(DataType):
    EnergyTransferMode: tuple[EnergyTransferMode, ...] = elements(energy_transfer_mode, max=6)


class ChargeService(Service):
    SupportedEnergyTransferMode: SupportedEnergyTransferMode = element(SupportedEnergyTransferMode)


class SelectedService(DataType):
    ServiceID: int = element(service_id)
    ParameterSetID: int | None = element(SHORT, default=None)


class SelectedServiceList(DataType):
    SelectedService: tuple[SelectedService, ...] = elements(SelectedService, max=16)


class Parameter(
    DataType,
    model=choice(
        "boolValue", "byteValue", "shortValue", "intValue", "physicalValue", "stringValue"
    ),
):
    """A name and exactly one of the six values."""

    boolValue: bool | None = element(BOOLEAN, default=None)
    byteValue: int | None = element(BYTE, default=None)
    shortValue: int | None = element(SHORT, default=None)
    intValue: int | None = element(INT, default=None)
    physicalValue: PhysicalValue | None = element(PhysicalValue, default=None)
    stringValue: str | None = element(STRING, default=None)
    Name: str = attribute(STRING)


class ParameterSet(DataType):
    ParameterSetID: int = element(SHORT)
    Parameter: tuple[Parameter, ...] = elements(Parameter, max=16)


class ServiceParameterList(DataType):
    ParameterSet: tuple[ParameterSet, ...] = elements(ParameterSet, max=255)


class PaymentOptionList(DataType):
    PaymentOption: tuple[PaymentOption, ...] = elements(payment_option, max=2)


# Certificates and contract keys -----------------------------------------------------------------


class SubCertificates(DataType):
    Certificate: tuple[bytes, ...] = elements(certificate, max=4)


class CertificateChain(DataType):
    """A leaf and up to four sub-CAs, DER; Id where the chain is signed."""

    Certificate: bytes = element(certificate)
    SubCertificates: SubCertificates | None = element(SubCertificates, default=None)
    Id: str | None = attribute(ID, default=None)


class ListOfRootCertificateIDs(DataType):
    RootCertificateID: tuple[xmldsig.X509IssuerSerial, ...] = elements(
        xmldsig.X509IssuerSerial, max=20
    )


class ContractSignatureEncryptedPrivateKey(DataType):
    """Initialisation vector (16 octets) and encrypted private key (32)."""

    value: bytes = text(private_key)
    Id: str = attribute(ID)


class DiffieHellmanPublickey(DataType):
    """An uncompressed point on P-256, 65 octets from the leading 04."""

    value: bytes = text(dh_publickey)
    Id: str = attribute(ID)


class EMAID(DataType):
    value: str = text(emaid)
    Id: str = attribute(ID)


# Metering ---------------------------------------------------------------------------------------


class MeterInfo(DataType):
    """MeterReading in Wh, TMeter in seconds since 1970."""

    MeterID: str = element(meter_id)
    MeterReading: int | None = element(UNSIGNED_LONG, default=None)
    SigMeterReading: bytes | None = element(sig_meter_reading, default=None)
    MeterStatus: int | None = element(meter_status, default=None)
    TMeter: int | None = element(LONG, default=None)


# Schedules and tariffs --------------------------------------------------------------------------


class Interval(DataType, abstract=True, element="TimeInterval"):
    """Head of the TimeInterval group."""


class RelativeTimeInterval(Interval, substitutes=Interval):
    """Seconds from the message on; one day at most in one entry."""

    start: int = element(_simple(Integer(None, low=0, high=16777214)))
    duration: int | None = element(_simple(Integer(None, low=0, high=86400)), default=None)


class Entry(DataType, abstract=True, element=True):
    """Head of the Entry group."""

    TimeInterval: Interval = element(ref(Interval))


class PMaxScheduleEntry(Entry, substitutes=Entry):
    PMax: PhysicalValue = element(PhysicalValue)


class PMaxSchedule(DataType):
    PMaxScheduleEntry: tuple[PMaxScheduleEntry, ...] = elements(ref(PMaxScheduleEntry), max=1024)


class Cost(DataType):
    costKind: CostKind = element(cost_kind)
    amount: int = element(UNSIGNED_INT)
    amountMultiplier: int | None = element(unit_multiplier, default=None)


class ConsumptionCost(DataType):
    startValue: PhysicalValue = element(PhysicalValue)
    Cost: tuple[Cost, ...] = elements(Cost, max=3)


class SalesTariffEntry(Entry, substitutes=Entry):
    EPriceLevel: int | None = element(UNSIGNED_BYTE, default=None)
    ConsumptionCost: tuple[ConsumptionCost, ...] = elements(ConsumptionCost, max=3, default=())


class SalesTariff(DataType):
    """Signed by the mobility operator's sub-CA 2 when Id is given."""

    SalesTariffID: int = element(said)
    SalesTariffDescription: str | None = element(tariff_description, default=None)
    NumEPriceLevels: int | None = element(UNSIGNED_BYTE, default=None)
    SalesTariffEntry: tuple[SalesTariffEntry, ...] = elements(ref(SalesTariffEntry), max=1024)
    Id: str | None = attribute(ID, default=None)


class SAScheduleTuple(DataType):
    SAScheduleTupleID: int = element(said)
    PMaxSchedule: PMaxSchedule = element(PMaxSchedule)
    SalesTariff: SalesTariff | None = element(SalesTariff, default=None)


class SASchedules(DataType, abstract=True, element=True):
    """Head of the SASchedules group."""


class SAScheduleList(SASchedules, substitutes=SASchedules):
    SAScheduleTuple: tuple[SAScheduleTuple, ...] = elements(SAScheduleTuple, max=3)


class ProfileEntry(DataType):
    """From ChargingProfileEntryStart seconds on, at most this power."""

    ChargingProfileEntryStart: int = element(UNSIGNED_INT)
    ChargingProfileEntryMaxPower: PhysicalValue = element(PhysicalValue)
    ChargingProfileEntryMaxNumberOfPhasesInUse: int | None = element(max_num_phases, default=None)


class ChargingProfile(DataType):
    ProfileEntry: tuple[ProfileEntry, ...] = elements(ProfileEntry, max=24)


# State of vehicle and charger -------------------------------------------------------------------


class EVStatus(DataType, abstract=True, element=True):
    """Head of the EVStatus group."""


class DC_EVStatus(EVStatus, substitutes=EVStatus):
    EVReady: bool = element(BOOLEAN)
    EVErrorCode: DC_EVErrorCode = element(dc_ev_error_code)
    EVRESSSOC: int = element(percent_value)


class EVSEStatus(DataType, abstract=True, element=True):
    """Head of the EVSEStatus group; NotificationMaxDelay in seconds."""

    NotificationMaxDelay: int = element(UNSIGNED_SHORT)
    EVSENotification: EVSENotification = element(evse_notification)


class AC_EVSEStatus(EVSEStatus, substitutes=EVSEStatus):
    RCD: bool = element(BOOLEAN)


class DC_EVSEStatus(EVSEStatus, substitutes=EVSEStatus):
    EVSEIsolationStatus: IsolationLevel | None = element(isolation_level, default=None)
    EVSEStatusCode: DC_EVSEStatusCode = element(dc_evse_status_code)


# Charge parameters ------------------------------------------------------------------------------


class EVChargeParameter(DataType, abstract=True, element=True):
    """Head of the EVChargeParameter group; DepartureTime in seconds from now."""

    DepartureTime: int | None = element(UNSIGNED_INT, default=None)


class AC_EVChargeParameter(EVChargeParameter, substitutes=EVChargeParameter):
    EAmount: PhysicalValue = element(PhysicalValue)
    EVMaxVoltage: PhysicalValue = element(PhysicalValue)
    EVMaxCurrent: PhysicalValue = element(PhysicalValue)
    EVMinCurrent: PhysicalValue = element(PhysicalValue)


class DC_EVChargeParameter(EVChargeParameter, substitutes=EVChargeParameter):
    DC_EVStatus: DC_EVStatus = element(DC_EVStatus)
    EVMaximumCurrentLimit: PhysicalValue = element(PhysicalValue)
    EVMaximumPowerLimit: PhysicalValue | None = element(PhysicalValue, default=None)
    EVMaximumVoltageLimit: PhysicalValue = element(PhysicalValue)
    EVEnergyCapacity: PhysicalValue | None = element(PhysicalValue, default=None)
    EVEnergyRequest: PhysicalValue | None = element(PhysicalValue, default=None)
    FullSOC: int | None = element(percent_value, default=None)
    BulkSOC: int | None = element(percent_value, default=None)


class EVSEChargeParameter(DataType, abstract=True, element=True):
    """Head of the EVSEChargeParameter group."""


class AC_EVSEChargeParameter(EVSEChargeParameter, substitutes=EVSEChargeParameter):
    AC_EVSEStatus: AC_EVSEStatus = element(AC_EVSEStatus)
    EVSENominalVoltage: PhysicalValue = element(PhysicalValue)
    EVSEMaxCurrent: PhysicalValue = element(PhysicalValue)


class DC_EVSEChargeParameter(EVSEChargeParameter, substitutes=EVSEChargeParameter):
    DC_EVSEStatus: DC_EVSEStatus = element(DC_EVSEStatus)
    EVSEMaximumCurrentLimit: PhysicalValue = element(PhysicalValue)
    EVSEMaximumPowerLimit: PhysicalValue = element(PhysicalValue)
    EVSEMaximumVoltageLimit: PhysicalValue = element(PhysicalValue)
    EVSEMinimumCurrentLimit: PhysicalValue = element(PhysicalValue)
    EVSEMinimumVoltageLimit: PhysicalValue = element(PhysicalValue)
    EVSECurrentRegulationTolerance: PhysicalValue | None = element(PhysicalValue, default=None)
    EVSEPeakCurrentRipple: PhysicalValue = element(PhysicalValue)
    EVSEEnergyToBeDelivered: PhysicalValue | None = element(PhysicalValue, default=None)


class EVPowerDeliveryParameter(DataType, abstract=True, element=True):
    """Head of the EVPowerDeliveryParameter group."""


class DC_EVPowerDeliveryParameter(EVPowerDeliveryParameter, substitutes=EVPowerDeliveryParameter):
    DC_EVStatus: DC_EVStatus = element(DC_EVStatus)
    BulkChargingComplete: bool | None = element(BOOLEAN, default=None)
    ChargingComplete: bool = element(BOOLEAN)
